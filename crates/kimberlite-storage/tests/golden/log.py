#!/usr/bin/env python3
"""Works out the bytes of the log that tests/it/golden.rs writes, from docs alone.

Standard library only. Run in this directory: it writes first_segment.hex, second_segment.hex, and
purged_segment.hex, which is the first one written anew without the payloads of its events. Of another log it
writes keyed_segment.hex, and keyed_purged_segment.hex, which is likewise.
"""

import hashlib
import struct

ONES8 = 2**64 - 1
ONES4 = 2**32 - 1
TIME = 1_700_000_000_000_000_000
LOG_ID = bytes(range(32))
PLAIN, COMMITTED, PURGED, MORE, KEYED = 0, 3, 4, 8, 16
GENESIS, KEY_SESSION, EVENT = 1, 3, 4

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = ONES4
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ ONES4


def sha256(data):
    return hashlib.sha256(data).digest()


class Log:
    def __init__(self):
        self.chain = sha256(b"kimberlite/v1/genesis\n" + LOG_ID)
        self.position = 0
        self.time = 0

    def segment(self, number, size):
        self.salt = bytes([number]) + b"\xa5" * 15
        checked = struct.pack("<I32sQ32s16sQ", 1, LOG_ID, self.position, self.chain, self.salt, size)
        checked = checked.ljust(4096 - 12, b"\0")
        self.bytes = b"KIMBSEG1" + struct.pack("<I", crc32c(checked)) + checked

    def frame(self, kind, flags, payloads, durable, sealed=False, key=b""):
        at = len(self.bytes)
        self.time = TIME + self.position if payloads else self.time
        stream, offset, session, counter = ONES8, ONES8, ONES8, ONES4
        if sealed:
            stream, offset, session, counter = 2, 0x01020304, 1, 77
        table, stored_payloads, end = b"", b"", 0
        for payload in payloads:
            end += len(payload)
            stored = sha256(payload) if flags & PURGED else payload
            table += struct.pack("<II", end, crc32c(stored))
            stored_payloads += stored
        table += key
        flags |= KEYED if key else 0
        body = table + stored_payloads
        seed = self.salt + struct.pack("<Q", at)
        fields = struct.pack(
            "<IIBBHIQQQQQQ32s8s",
            112 + len(body),
            crc32c(seed + table) if table else 0,
            kind,
            flags,
            len(payloads),
            counter,
            self.position,
            stream,
            offset,
            self.time,
            session,
            durable,
            self.chain,
            LOG_ID[:8],
        )
        frame = b"KFRM" + struct.pack("<I", crc32c(seed + fields)) + fields + body
        self.bytes += frame + b"\0" * (-len(frame) % 8)
        for index, payload in enumerate(payloads):
            header = b"K" + bytes([1, kind, flags & 3]) + struct.pack(
                "<IQQQQQI32s",
                counter + index if sealed else ONES4,
                self.position,
                self.time,
                stream,
                offset + index if sealed else ONES8,
                session,
                len(payload),
                sha256(payload),
            )
            assert len(header) == 84
            self.chain = sha256(b"\2" + self.chain + sha256(b"\0" + header))
            self.position += 1

    def write(self, name):
        with open(name, "w") as file:
            for at in range(0, len(self.bytes), 16):
                row = self.bytes[at : at + 16].ljust(16, b"\0")
                if any(row):
                    file.write(f"{at:06x}: {row.hex(' ')}\n")


def first_segment(log, number, size, purged):
    log.segment(number, size)
    log.frame(GENESIS, PLAIN, [b"the genesis payload"], 0)
    log.frame(KEY_SESSION, PLAIN | MORE, [b"session", b"stream name"], 1)
    events = [b"one", b"", b"a longer payload, of 33 bytes ..."]
    log.frame(EVENT, COMMITTED | purged, events, 1, sealed=True)
    log.frame(0, PLAIN, [], 6)


log = Log()
first_segment(log, 0, 256 << 10, 0)
log.write("first_segment.hex")
log.segment(1, 1 << 20)
log.frame(200, PLAIN, [b"of a later release"], 6)
log.write("second_segment.hex")

log = Log()
first_segment(log, 2, 8192, PURGED)
log.write("purged_segment.hex")


def keyed_segment(log, number, size, purged):
    log.segment(number, size)
    log.frame(GENESIS, PLAIN, [b"the genesis payload"], 0)
    key = bytes(range(16)) + bytes(range(16, 32)) + struct.pack("<II", 3, 0)
    log.frame(EVENT, COMMITTED | MORE | purged, [b"one", b"two"], 1, sealed=True, key=key)
    log.frame(EVENT, COMMITTED | purged, [b"three"], 1, sealed=True)
    log.frame(0, PLAIN, [], 4)


log = Log()
keyed_segment(log, 0, 256 << 10, 0)
log.write("keyed_segment.hex")

log = Log()
keyed_segment(log, 2, 8192, PURGED)
log.write("keyed_purged_segment.hex")
