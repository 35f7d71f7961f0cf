//! A file: what readers see, what the medium holds, and the changes between the two.

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// The longest file. Beyond it an offset is a bug of the caller, not a reason to use up memory.
pub(super) const FILE_BYTES_MAX: usize = 1 << 32;

/// A change of a file that is not yet durable.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes written at an offset.
    Write {
        /// Where.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A new length.
    Length(usize),
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// One file, under whatever names it has.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether the owner alone may read it.
    pub(super) private: bool,
}

impl FileNode {
    pub(super) fn new(private: bool) -> Self {
        Self {
            private,
            ..Self::default()
        }
    }

    /// What readers see.
    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }

    /// What the medium holds for certain.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The changes that a sync would make durable, oldest first.
    pub(super) fn unsynced(&self) -> &[Change] {
        &self.unsynced
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.unsynced.push(change);
    }

    /// A write that readers see where it belongs, and that the medium does not get there. The length
    /// is kept with the names and does reach the medium.
    pub(super) fn pretend(&mut self, offset: usize, bytes: Vec<u8>) {
        let before = self.visible.len();
        Change::Write { offset, bytes }.apply(&mut self.visible);
        if self.visible.len() > before {
            self.unsynced.push(Change::Length(self.visible.len()));
        }
    }

    /// Bytes that the medium gets here, though readers do not see them here.
    pub(super) fn land(&mut self, offset: usize, bytes: Vec<u8>) {
        self.unsynced.push(Change::Write { offset, bytes });
    }

    /// Bytes of another file that land on the medium of this one, as far as it has sectors there.
    pub(super) fn spoil(&mut self, offset: usize, bytes: &[u8]) {
        for (old, new) in self.durable.iter_mut().skip(offset).zip(bytes) {
            *old = *new;
        }
    }

    /// Makes durable what is unsynced. What an earlier failed sync gave up is not among it.
    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Makes durable what is unsynced, but for the newest change of it.
    pub(super) fn sync_all_but_newest(&mut self) {
        let newest = self.unsynced.pop();
        self.sync();
        self.unsynced.extend(newest);
    }

    /// A sync failed: what was unsynced counts as clean, and stays visible until power is lost.
    pub(super) fn give_up_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// The file holds this, and all of it is durable.
    pub(super) fn settle(&mut self, content: Vec<u8>) {
        self.unsynced.clear();
        self.visible.clone_from(&content);
        self.durable = content;
    }

    /// Changes one byte wherever it is kept.
    pub(super) fn rot(&mut self, byte: usize, change: impl Fn(u8) -> u8) {
        assert!(
            byte < self.visible.len(),
            "byte {byte} is past the end of the file"
        );
        for content in [&mut self.visible, &mut self.durable] {
            if let Some(value) = content.get_mut(byte) {
                *value = change(*value);
            }
        }
        for unsynced in &mut self.unsynced {
            if let Change::Write { offset, bytes } = unsynced
                && let Some(value) = byte.checked_sub(*offset).and_then(|at| bytes.get_mut(at))
            {
                *value = change(*value);
            }
        }
    }
}
