#!/usr/bin/env python3
"""Computes the known answers of kimberlite-crypto, from the definitions and without its code.

Standard library only; what that lacks (AES, GCM, key wrap, Ed25519) is spelled out below and first
held against published answers. Writes vectors.json beside itself:

    python3 crates/kimberlite-crypto/tests/vectors/vectors.py
"""

import base64
import hashlib
import hmac
import json
import pathlib
import struct

NONE = 2**64 - 1


def sha256(data):
    return hashlib.sha256(data).digest()


def hmac_sha256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf_expand(key, info, length=32):
    """RFC 5869, 2.3, for one block of output."""
    return hmac_sha256(key, info + b"\x01")[:length]


# AES-256 (FIPS 197), by its definition.


def xtime(a):
    return ((a << 1) ^ 0x11B if a & 0x80 else a << 1) & 0xFF


def field_multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = xtime(a), b >> 1
    return product


def make_sbox():
    box = []
    for value in range(256):
        inverse = next((i for i in range(256) if field_multiply(value, i) == 1), 0)
        out = 0x63
        for shift in range(5):
            out ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box.append(out)
    return box


SBOX = make_sbox()
SBOX_INVERSE = [SBOX.index(value) for value in range(256)]
ROUNDS = 14


def key_schedule(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 4 * (ROUNDS + 1)):
        word = list(words[-1])
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = xtime(constant)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word)])
    return [sum(words[i : i + 4], []) for i in range(0, len(words), 4)]


def aes_encrypt(key, block):
    keys = key_schedule(key)
    state = [a ^ b for a, b in zip(block, keys[0])]
    for round_ in range(1, ROUNDS + 1):
        state = [SBOX[b] for b in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if round_ != ROUNDS:
            mixed = []
            for c in range(0, 16, 4):
                col = state[c : c + 4]
                for r in range(4):
                    mixed.append(
                        xtime(col[r])
                        ^ xtime(col[(r + 1) % 4])
                        ^ col[(r + 1) % 4]
                        ^ col[(r + 2) % 4]
                        ^ col[(r + 3) % 4]
                    )
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[round_])]
    return bytes(state)


def gcm_multiply(x, y):
    z = 0
    for i in range(127, -1, -1):
        if (x >> i) & 1:
            z ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return z


def gcm_seal(key, nonce, associated, plaintext):
    """AES-GCM (NIST SP 800-38D) with a nonce of 12 bytes."""

    def keystream(counter):
        return aes_encrypt(key, nonce + struct.pack(">I", counter))

    ciphertext = b""
    for i in range(0, len(plaintext), 16):
        stream = keystream(2 + i // 16)
        ciphertext += bytes(a ^ b for a, b in zip(plaintext[i : i + 16], stream))

    def padded(data):
        return data + bytes(-len(data) % 16)

    lengths = struct.pack(">QQ", 8 * len(associated), 8 * len(ciphertext))
    hash_key = int.from_bytes(aes_encrypt(key, bytes(16)), "big")
    y = 0
    blocks = padded(associated) + padded(ciphertext) + lengths
    for i in range(0, len(blocks), 16):
        y = gcm_multiply(y ^ int.from_bytes(blocks[i : i + 16], "big"), hash_key)
    tag = y ^ int.from_bytes(keystream(1), "big")
    return ciphertext + tag.to_bytes(16, "big")


def key_wrap(key, secret):
    """RFC 3394, 2.2.1."""
    a = b"\xa6" * 8
    blocks = [secret[i : i + 8] for i in range(0, len(secret), 8)]
    for j in range(6):
        for i in range(len(blocks)):
            b = aes_encrypt(key, a + blocks[i])
            t = len(blocks) * j + i + 1
            a = (int.from_bytes(b[:8], "big") ^ t).to_bytes(8, "big")
            blocks[i] = b[8:]
    return a + b"".join(blocks)


# Ed25519 (RFC 8032, 5.1), by its definition.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def point_add(p, q):
    (x1, y1), (x2, y2) = p, q
    t = D * x1 * x2 * y1 * y2 % P
    x3 = (x1 * y2 + x2 * y1) * pow(1 + t, P - 2, P) % P
    y3 = (y1 * y2 + x1 * x2) * pow(1 - t, P - 2, P) % P
    return x3, y3


def point_multiply(scalar, p):
    q = (0, 1)
    while scalar:
        if scalar & 1:
            q = point_add(q, p)
        p, scalar = point_add(p, p), scalar >> 1
    return q


BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    4 * pow(5, P - 2, P) % P,
)


def point_encode(p):
    return (p[1] | (p[0] & 1) << 255).to_bytes(32, "little")


def ed25519_sign(seed, message):
    h = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254
    public = point_encode(point_multiply(scalar, BASE))
    r = int.from_bytes(hashlib.sha512(h[32:] + message).digest(), "little") % ORDER
    big_r = point_encode(point_multiply(r, BASE))
    k = int.from_bytes(hashlib.sha512(big_r + public + message).digest(), "little") % ORDER
    s = (r + k * scalar) % ORDER
    return public, big_r + s.to_bytes(32, "little")


def check_primitives():
    """Published answers: FIPS 197 C.3, GCM test case 16, RFC 3394 4.6, RFC 8032 7.1 test 2."""
    h = bytes.fromhex
    key = bytes(range(32))
    block = h("00112233445566778899aabbccddeeff")
    assert aes_encrypt(key, block) == h("8ea2b7ca516745bfeafc49904b496089")
    sealed = gcm_seal(
        h("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
        h("cafebabefacedbaddecaf888"),
        h("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        h(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
    )
    assert sealed[-16:] == h("76fc6ece0f4e1768cddf8853bb2d551b")
    wrapped = key_wrap(key, block + h("000102030405060708090a0b0c0d0e0f"))
    assert wrapped == h("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
    public, signature = ed25519_sign(
        h("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"), h("72")
    )
    assert public == h("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540")


# The definitions of Kimberlite.


def header(record):
    return struct.pack(
        "<cBBBIQQQQQI32s",
        b"K",
        1,
        record["kind"],
        record["flags"],
        record["counter"],
        record["position"],
        record["time"],
        record["stream"],
        record["offset"],
        record["session"],
        record["payload_bytes"],
        bytes.fromhex(record["payload_digest"]),
    )


def leaf(header_bytes):
    return sha256(b"\x00" + header_bytes)


def root(leaves):
    """RFC 6962, 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def envelope(event_type, metadata, data):
    return b"\x01" + b"".join(varint(len(f)) + f for f in (event_type, metadata, data))


def records_section():
    genesis = b"the payload of a genesis record"
    log_id = sha256(genesis)
    chain = sha256(b"kimberlite/v1/genesis\n" + log_id)
    section = {
        "genesis_payload": genesis.hex(),
        "log_id": log_id.hex(),
        "chain_seed": chain.hex(),
        "records": [],
    }
    payloads = [genesis, b"", b"x" * 1000, bytes(range(256)), b"sealed"]
    kinds = [(1, 0), (2, 3), (3, 0), (4, 3), (200, 1)]
    for position, (payload, (kind, flags)) in enumerate(zip(payloads, kinds)):
        sealed = flags != 0
        record = {
            "kind": kind,
            "flags": flags,
            "counter": 0x01020304 + position if sealed else 2**32 - 1,
            "position": position,
            "time": 1_700_000_000_000_000_000 + position,
            "stream": 1 if kind in (4, 200) else NONE,
            "offset": 2**40 + 5 if kind in (4, 200) else NONE,
            "session": 2 if sealed else NONE,
            "payload": payload.hex(),
            "payload_bytes": len(payload),
            "payload_digest": sha256(payload).hex(),
        }
        encoded = header(record)
        chain = sha256(b"\x02" + chain + leaf(encoded))
        record |= {"header": encoded.hex(), "leaf": leaf(encoded).hex(), "chain": chain.hex()}
        section["records"].append(record)
    return section


def tree_section():
    """Leaf i is the leaf of 84 bytes that begin with i as a u64 and are zero otherwise."""
    sizes = [*range(21), 63, 64, 65, 100, 255, 256, 257, 1000, 1023, 4097]
    leaves = [leaf(struct.pack("<Q", i) + bytes(76)) for i in range(max(sizes))]
    left, right = leaves[:2]
    return {
        "node_of_first_two": sha256(b"\x01" + left + right).hex(),
        "roots": [{"size": size, "root": root(leaves[:size]).hex()} for size in sizes],
    }


def session_section():
    log_id, key_id, salt = bytes([1] * 32), bytes(range(16)), bytes([9] * 32)
    root_key, data_key = bytes(range(32)), bytes(range(64, 96))
    version, epoch = 0x01020304, 5
    le32 = lambda value: struct.pack("<I", value)
    kek = hkdf_expand(root_key, b"kimberlite/v1/key-encryption" + log_id + le32(epoch))
    wrapping = hkdf_expand(kek, b"kimberlite/v1/wrap" + log_id + key_id + le32(version))
    suite = struct.pack("<H", 1)
    secret = hkdf_expand(
        data_key, b"kimberlite/v1/session" + suite + log_id + key_id + le32(version) + salt
    )
    key = hkdf_expand(secret, b"kimberlite/v1/session/key")
    base = hkdf_expand(secret, b"kimberlite/v1/session/nonce", 12)
    blind = hkdf_expand(secret, b"kimberlite/v1/session/blind")
    commitment = hkdf_expand(secret, b"kimberlite/v1/session/commitment")
    params = b"\x01\x00" + suite + le32(version) + key_id + salt + commitment
    check = sha256(b"kimberlite/v1/root-key-check\n" + root_key)[:4]

    sealings = []
    text = envelope(b"admitted", b'{"by":"dr"}', b"d" * 300)
    for stream, session, counter, committed, plaintext in [
        (6, 7, 0, True, text),
        (6, 7, 1, False, text),
        (NONE, 2**40, 0xFFFEFDFC, True, b""),
        (0, 1, 0xFFFFFFFF, False, b"0123456789abcdef"),
    ]:
        le = le32(counter)
        nonce = base[:8] + bytes(a ^ b for a, b in zip(base[8:], le))
        bound = sha256(b"\x03" + hmac_sha256(blind, le) + plaintext) if committed else b""
        associated = log_id + struct.pack("<QQ", stream, session) + le + bound
        sealings.append(
            {
                "stream": stream,
                "session": session,
                "counter": counter,
                "committed": committed,
                "plaintext": plaintext.hex(),
                "sealed": (bound + gcm_seal(key, nonce, associated, plaintext)).hex(),
            }
        )
    return {
        "log_id": log_id.hex(),
        "root_key": root_key.hex(),
        "root_key_file": f"kimberlite-root-key-v1 {root_key.hex()} {check.hex()}\n",
        "epoch": epoch,
        "key_id": key_id.hex(),
        "key_version": version,
        "data_key": data_key.hex(),
        "wrapped": key_wrap(wrapping, data_key).hex(),
        "salt": salt.hex(),
        "params": params.hex(),
        "envelope": {
            "event_type": "admitted",
            "metadata": b'{"by":"dr"}'.hex(),
            "data": (b"d" * 300).hex(),
            "encoded": text.hex(),
        },
        "sealings": sealings,
    }


def page_section():
    data_key, log_id, name_hash = bytes(range(64, 96)), bytes([1] * 32), bytes([2] * 32)
    version, salt, page, kind, counter = 0x01020304, bytes(range(16)), 0x05060708, 2, 2**40 + 3
    projection = hkdf_expand(data_key, b"kimberlite/v1/projection" + log_id)
    key = hkdf_expand(
        projection,
        b"kimberlite/v1/store/page" + log_id + name_hash + struct.pack("<I", version) + salt,
    )
    plaintext, superblock = b"what the page holds" * 20, b"s" * 168
    nonce = bytes(4) + struct.pack("<Q", counter)
    sealed = gcm_seal(key, nonce, struct.pack("<IB", page, kind), plaintext)
    return {
        "data_key": data_key.hex(),
        "log_id": log_id.hex(),
        "name_hash": name_hash.hex(),
        "version": version,
        "salt": salt.hex(),
        "page": page,
        "kind": kind,
        "counter": counter,
        "plaintext": plaintext.hex(),
        "sealed": sealed.hex(),
        "superblock": superblock.hex(),
        "superblock_code": hkdf_expand(
            projection, b"kimberlite/v1/store/superblock" + superblock
        ).hex(),
    }


def note_section():
    seed, origin, size, time = bytes([7] * 32), "clinic-7/0123456789abcdef/0", 12345, 1700000000
    root_, chain = sha256(b"a root"), sha256(b"a chain")
    b64 = lambda data: base64.b64encode(data).decode()
    text = (
        f"{origin}\n{size}\n{b64(root_)}\n"
        f"kimberlite/v1/chain {b64(chain)}\nkimberlite/v1/time {time}\n"
    )
    public, signature = ed25519_sign(seed, text.encode())
    key_id = sha256(origin.encode() + b"\n\x01" + public)[:4]
    return {
        "seed": seed.hex(),
        "origin": origin,
        "size": size,
        "root": root_.hex(),
        "chain": chain.hex(),
        "time": time,
        "verifier_key": f"{origin}+{key_id.hex()}+{b64(bytes([1]) + public)}",
        "note": f"{text}\n— {origin} {b64(key_id + signature)}\n",
    }


def main():
    check_primitives()
    vectors = {
        "made_by": "crates/kimberlite-crypto/tests/vectors/vectors.py",
        "log": records_section(),
        "tree": tree_section(),
        "keys": session_section(),
        "page": page_section(),
        "note": note_section(),
    }
    path = pathlib.Path(__file__).with_name("vectors.json")
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
