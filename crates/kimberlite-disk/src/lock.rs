//! The lock of a directory: an advisory lock on a file in it.
//!
//! The lock belongs to the open file, not to the process, so two handles in one process exclude
//! each other like two processes do, and the kernel frees it however the process ends. The id in
//! the file serves the error message alone and never decides anything.
#![expect(
    clippy::disallowed_methods,
    reason = "a lock file is opened like no other file"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{DirectoryLock, DiskError};

/// The longest process id is ten digits; what is longer was not written here.
const PID_BYTES_MAX: usize = 16;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct OsLock {
    /// Closing the file frees the lock.
    _file: File,
}

impl DirectoryLock for OsLock {}

impl OsLock {
    /// Whether somebody has the lock. Nothing is written, and a missing file is held by nobody.
    pub(crate) fn is_held(path: &Path) -> Result<bool, DiskError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(DiskError::from_io(path, "open", e)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(DiskError::from_io(path, "look at the lock", e.into())),
        }
    }

    /// Takes the lock, or says who has it.
    pub(crate) fn take(path: &Path) -> Result<Self, DiskError> {
        let failed = |e| DiskError::from_io(path, "lock", e);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(failed)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    let path = path.to_path_buf();
                    return Err(DiskError::Locked {
                        path,
                        holder: holder(&file),
                    });
                }
                Err(e) => return Err(failed(e.into())),
            }
        }
        // The file is never removed: a lock on a file that somebody else has just unlinked would
        // exclude nobody.
        // Its holder is told to others, and decides nothing: on a full disk it stays untold.
        let _ = write_holder(&file);
        Ok(Self { _file: file })
    }
}

fn write_holder(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

/// The process that is named in the file, if one is.
fn holder(file: &File) -> Option<u32> {
    let mut buffer = [0; PID_BYTES_MAX];
    let bytes = file.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..bytes)?)
        .ok()?
        .trim_end()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_handle_is_refused_and_told_who_holds_the_lock() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("LOCK");
        let held = OsLock::take(&path).unwrap();
        let refused = OsLock::take(&path).unwrap_err();
        let holder = Some(std::process::id());
        assert!(matches!(refused, DiskError::Locked { holder: h, .. } if h == holder));
        drop(held);
        OsLock::take(&path).unwrap();
    }

    #[test]
    fn a_lock_file_that_a_dead_process_left_does_not_block() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("LOCK");
        std::fs::write(&path, "4294967295\nand something much longer").unwrap();
        let _held = OsLock::take(&path).unwrap();
        let expected = format!("{}\n", std::process::id());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn garbage_in_a_held_lock_file_hides_the_holder_only() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("LOCK");
        let held = OsLock::take(&path).unwrap();
        std::fs::write(&path, [0xff; 64]).unwrap();
        let refused = OsLock::take(&path).unwrap_err();
        assert!(matches!(refused, DiskError::Locked { holder: None, .. }));
        drop(held);
    }

    #[test]
    fn a_lock_in_a_directory_that_is_missing_names_the_path() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("missing/LOCK");
        let refused = OsLock::take(&path).unwrap_err();
        assert!(refused.is_not_found());
        assert_eq!(refused.path(), path);
    }
}
