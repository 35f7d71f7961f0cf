//! What each counter of each key session sealed, over all lives of a database.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::SimulatedDisk;

const FRAME_HEADER_BYTES: usize = 112;
const TABLE_ENTRY_BYTES: usize = 8;
const SEGMENT_HEADER_BYTES: usize = 4096;
const SEGMENT_MAGIC: &[u8] = b"KIMBSEG1";
const KEY_SESSION: u8 = 3;
/// Of the flags of a frame.
const PURGED: u8 = 4;
const KEYED: u8 = 16;
const KEYED_APPEND_BYTES: usize = 40;
/// Where the commitment to the key stands in the payload of a key-session record.
const KEY_COMMITMENT_AT: usize = 56;

/// Sees every frame that is ever written to a disk, also those that are lost, and tells when two
/// payloads were sealed with one key and nonce.
///
/// Reads frames as the description of the format has them, without the code that writes them. A
/// segment that is written anew by another timeline may give a position to another key session, so
/// timelines of one tenant may follow each other but not take turns.
#[derive(Clone, Debug, Default)]
pub struct NonceLedger {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    sealed: HashMap<([u8; 32], u32), Vec<u8>>,
    /// By directory of the log, and position.
    sessions: HashMap<(PathBuf, u64), [u8; 32]>,
    /// The last one at a position of any log: a log that was restored is not written frame by frame.
    restored: HashMap<u64, [u8; 32]>,
    repeated: bool,
}

impl NonceLedger {
    /// A ledger that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches the disk, and those that follow from it.
    pub fn watch(&self, disk: &SimulatedDisk) {
        let ledger = self.clone();
        disk.set_write_observer(Arc::new(move |path, _, bytes| {
            // What was cut off the end of a log is kept in a file: it was seen already, and is torn.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.contains(".tail") {
                ledger.observe(path, bytes);
            }
        }));
    }

    /// Takes in what is written to the file at `path`: frames, behind a header page or not.
    pub fn observe(&self, path: &Path, bytes: &[u8]) {
        let frames = if bytes.starts_with(SEGMENT_MAGIC) {
            bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default()
        } else {
            bytes
        };
        let directory = path.parent().unwrap_or(path);
        self.entries().take(directory, frames);
    }

    /// Whether a key and nonce sealed two payloads.
    pub fn is_repeated(&self) -> bool {
        self.entries().repeated
    }

    /// How many pairs of key and nonce were seen.
    pub fn len(&self) -> usize {
        self.entries().sealed.len()
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn take(&mut self, directory: &Path, mut bytes: &[u8]) {
        while bytes.len() >= FRAME_HEADER_BYTES && bytes.starts_with(b"KFRM") {
            let length = usize_at(bytes, 8);
            // Of a write that was cut short the last frame is not whole.
            if length > bytes.len() {
                return;
            }
            self.take_frame(directory, &bytes[..length]);
            bytes = &bytes[length.next_multiple_of(8).min(bytes.len())..];
        }
    }

    fn take_frame(&mut self, directory: &Path, frame: &[u8]) {
        let (kind, encrypted) = (frame[16], frame[17] & 1 != 0);
        let count = usize::from(u16::from_le_bytes([frame[18], frame[19]]));
        let (counter, base, session) = (u32_at(frame, 20), u64_at(frame, 24), u64_at(frame, 56));
        if frame[17] & PURGED != 0 {
            // Digests stand there, and seal nothing.
            return;
        }
        let key = if frame[17] & KEYED == 0 {
            0
        } else {
            KEYED_APPEND_BYTES
        };
        let payloads = &frame[FRAME_HEADER_BYTES + TABLE_ENTRY_BYTES * count + key..];
        let mut start = 0;
        for (index, nth) in (0..count).zip(0..) {
            let end = usize_at(frame, FRAME_HEADER_BYTES + TABLE_ENTRY_BYTES * index);
            let payload = &payloads[start..end];
            start = end;
            if kind == KEY_SESSION {
                let key = payload[KEY_COMMITMENT_AT..].first_chunk();
                let key = key.expect("the payload of a key session has 88 bytes");
                self.sessions.insert((directory.to_owned(), base), *key);
                self.restored.insert(base, *key);
            } else if encrypted {
                let own = self.sessions.get(&(directory.to_owned(), session));
                let key = *own.unwrap_or_else(|| &self.restored[&session]);
                let before = self.sealed.insert((key, counter + nth), payload.to_vec());
                self.repeated |= before.is_some_and(|before| before != payload);
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes[at..].first_chunk();
    u32::from_le_bytes(*found.expect("inside of a frame"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes[at..].first_chunk();
    u64::from_le_bytes(*found.expect("inside of a frame"))
}

fn usize_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32_at(bytes, at)).expect("an address has at least 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_sees_a_counter_that_seals_twice() {
        let frame = |payload: &[u8], kind: u8, counter: u32| {
            let mut bytes = vec![0; FRAME_HEADER_BYTES + TABLE_ENTRY_BYTES];
            bytes[..4].copy_from_slice(b"KFRM");
            let length = u32::try_from(bytes.len() + payload.len()).unwrap();
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            (bytes[16], bytes[17], bytes[18]) = (kind, u8::from(kind != KEY_SESSION), 1);
            bytes[20..24].copy_from_slice(&counter.to_le_bytes());
            let end = u32::try_from(payload.len()).unwrap().to_le_bytes();
            bytes[FRAME_HEADER_BYTES..][..4].copy_from_slice(&end);
            bytes.extend_from_slice(payload);
            bytes
        };
        let (a, b) = (Path::new("/a/0.seg"), Path::new("/b/0.seg"));
        let ledger = NonceLedger::new();
        ledger.observe(a, &frame(&[1; 120], KEY_SESSION, 0));
        ledger.observe(a, &frame(b"one", 4, 0));
        ledger.observe(a, &frame(b"two", 4, 1));
        // Written again after an unclean end, which is no second sealing.
        ledger.observe(a, &frame(b"two", 4, 1));
        // Another tenant has a session of its own at the same position.
        ledger.observe(b, &frame(&[2; 120], KEY_SESSION, 0));
        ledger.observe(b, &frame(b"another", 4, 1));
        assert!(!ledger.is_repeated());
        assert_eq!(ledger.len(), 3);
        ledger.observe(a, &frame(b"another", 4, 1));
        assert!(ledger.is_repeated());
    }
}
