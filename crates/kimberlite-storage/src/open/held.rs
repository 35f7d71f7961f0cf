//! The last segment in memory while it is read, as a mapping: a copy of 64 MiB takes longer than
//! everything else that an opening does.
//!
//! A mapped file must not change. Nobody else writes to this one, and before the opening does, every
//! slice of the mapping must be gone.

use std::sync::Arc;

use bytes::Bytes;
use kimberlite_disk::{DiskError, DiskFile};

/// Tells whether slices of a mapping are left.
#[derive(Debug)]
pub(super) struct Held(Arc<()>);

struct Owner {
    map: Bytes,
    _held: Arc<()>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Held {
    /// Maps the first `bytes` bytes of a file.
    pub(super) fn map(file: &dyn DiskFile, bytes: u64) -> Result<(Bytes, Self), DiskError> {
        let held = Arc::new(());
        let owner = Owner {
            map: file.map(bytes)?,
            _held: Arc::clone(&held),
        };
        Ok((Bytes::from_owner(owner), Self(held)))
    }

    /// Ends the mapping: from here on the file may change.
    pub(super) fn let_go(self) {
        assert_eq!(
            Arc::strong_count(&self.0),
            1,
            "a visitor keeps nothing of what it is shown"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kimberlite_disk::{Access, Disk as _};
    use kimberlite_testkit::SimulatedDisk;

    use super::*;

    #[test]
    #[should_panic(expected = "keeps nothing")]
    fn a_slice_that_is_kept_is_noticed() {
        let disk = SimulatedDisk::new(1);
        let file = disk.create(Path::new("/file"), Access::Shared).unwrap();
        file.write_all_at(&[b"bytes"], 0).unwrap();
        let (bytes, held) = Held::map(file.as_ref(), 5).unwrap();
        let kept = bytes.slice(1..2);
        drop(bytes);
        held.let_go();
        drop(kept);
    }
}
