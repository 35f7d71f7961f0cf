//! Files of a backup: written, read back, and compared.

use std::collections::BTreeSet;
use std::path::Path;

use kimberlite_crypto::{InternalHash, InternalHasher, internal_hash};
use kimberlite_disk::{Access, Disk, DiskError, DiskFile, OpenMode};

use super::BackedUpFile;
use crate::error::StorageError;
use crate::prepare::TEMPORARY_ENDING;

const SEGMENT_ENDING: &str = ".seg";

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What a file of a backup is to hold.
#[derive(Clone, Copy, Debug)]
pub struct FileContent<'a> {
    /// Its path below the directory of the backup.
    pub path: &'a str,
    /// Its first bytes.
    pub content: &'a [u8],
    /// Its length; what lies behind the content reads as zeros.
    pub bytes: u64,
    /// Who may read it.
    pub access: Access,
}

impl FileContent<'_> {
    /// Returns what a manifest says of it.
    pub fn entry(&self) -> BackedUpFile {
        BackedUpFile {
            path: self.path.to_owned(),
            bytes: self.bytes,
            used: u64::try_from(self.content.len()).expect("memory is smaller than 2^64 bytes"),
            digest: internal_hash(self.content),
            access: self.access,
        }
    }
}

/// Writes a file below `root`, durably, in place of what may be there, and reads it back.
///
/// # Errors
///
/// [`StorageError::BackupFile`] when what is read is not what was written, [`StorageError::Disk`]
/// when the disk refuses.
pub fn write_file(
    disk: &dyn Disk,
    root: &Path,
    file: &FileContent<'_>,
) -> Result<BackedUpFile, StorageError> {
    let entry = file.entry();
    let unnamed = Unnamed::create(disk, root, &entry)?;
    unnamed.file.write_all_at(&[file.content], 0)?;
    unnamed.name(disk, &entry)?;
    if file_matches(disk, root, &entry)? {
        Ok(entry)
    } else {
        Err(damaged(&entry))
    }
}

/// Whether the file below `root` is there and holds what the manifest says.
///
/// # Errors
///
/// [`StorageError::Disk`] when it cannot be read.
pub fn file_matches(
    disk: &dyn Disk,
    root: &Path,
    entry: &BackedUpFile,
) -> Result<bool, StorageError> {
    let file = match disk.open(&root.join(&entry.path), OpenMode::Read) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if file.bytes()? != entry.bytes {
        return Ok(false);
    }
    let mut zeros = true;
    let digest = read_through(file.as_ref(), entry, &mut |_, piece| {
        zeros &= piece.behind.iter().all(|&byte| byte == 0);
        Ok(())
    })?;
    Ok(zeros && digest == entry.digest)
}

/// Copies a file of a backup from below `from` to below `to`, durably, and checks what it copies and
/// what it wrote. Of the file in the backup only what the manifest speaks of is taken: a later
/// backup may have added to it. The space of a segment is taken, as it was in the original.
///
/// # Errors
///
/// [`StorageError::BackupFile`] when the file is not what the manifest says.
pub fn copy_file(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    entry: &BackedUpFile,
) -> Result<(), StorageError> {
    let source = match disk.open(&from.join(&entry.path), OpenMode::Read) {
        Ok(source) => source,
        Err(DiskError::NotFound { .. }) => return Err(damaged(entry)),
        Err(error) => return Err(error.into()),
    };
    if source.bytes()? < entry.used {
        return Err(damaged(entry));
    }
    let unnamed = Unnamed::create(disk, to, entry)?;
    let used = BackedUpFile {
        bytes: entry.used,
        ..entry.clone()
    };
    let digest = read_through(source.as_ref(), &used, &mut |at, piece| {
        Ok(unnamed.file.write_all_at(&[piece.used], at)?)
    })?;
    if digest != entry.digest {
        return Err(damaged(entry));
    }
    if entry.path.ends_with(SEGMENT_ENDING) {
        // Appends to it must not find the disk full.
        unnamed.file.allocate(entry.used..entry.bytes)?;
    }
    unnamed.name(disk, entry)?;
    if file_matches(disk, to, entry)? {
        Ok(())
    } else {
        Err(damaged(entry))
    }
}

/// Makes the names of files below `root` durable. A run that was cut short may have named a file, whose
/// bytes are durable then, without having synced its directory; who finds it there takes it as it is.
///
/// # Errors
///
/// [`StorageError::Disk`] when a directory cannot be synced.
pub fn sync_names(
    disk: &dyn Disk,
    root: &Path,
    files: &[BackedUpFile],
) -> Result<(), StorageError> {
    let below = files.iter().map(|file| Path::new(&file.path));
    let directories: BTreeSet<_> = below.flat_map(|path| path.ancestors().skip(1)).collect();
    // What is in a directory sorts behind it: the deepest come first.
    for directory in directories.into_iter().rev() {
        disk.sync_dir(&root.join(directory))?;
    }
    Ok(())
}

/// A file that is being written beside the name that it will have.
struct Unnamed {
    file: std::sync::Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    temporary: std::path::PathBuf,
}

impl Unnamed {
    fn create(disk: &dyn Disk, root: &Path, entry: &BackedUpFile) -> Result<Self, StorageError> {
        let path = root.join(&entry.path);
        if let Some(directory) = path.parent() {
            disk.create_dir_all(directory)?;
        }
        let temporary = root.join(format!("{}{TEMPORARY_ENDING}", entry.path));
        match disk.remove(&temporary) {
            Ok(()) | Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let file = disk.create(&temporary, entry.access)?;
        Ok(Self {
            file,
            path,
            temporary,
        })
    }

    /// Gives the file its length and then its name, durably.
    fn name(self, disk: &dyn Disk, entry: &BackedUpFile) -> Result<(), StorageError> {
        self.file.set_bytes(entry.bytes)?;
        self.file.sync_all()?;
        disk.rename(&self.temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            disk.sync_dir(directory)?;
        }
        Ok(())
    }
}

/// A piece of a file: bytes that count, and bytes behind them.
struct Piece<'a> {
    used: &'a [u8],
    behind: &'a [u8],
}

/// Reads as much of a file as `entry` says that it has, and returns the digest of what counts.
fn read_through(
    file: &dyn DiskFile,
    entry: &BackedUpFile,
    see: &mut dyn FnMut(u64, &Piece<'_>) -> Result<(), StorageError>,
) -> Result<InternalHash, StorageError> {
    let mut hasher = InternalHasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < entry.bytes {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let take = length(entry.bytes - at).min(PIECE_BYTES);
        let (piece, _) = buffer.split_at_mut(take);
        file.read_exact_at(piece, at)?;
        let (used, behind) = piece.split_at(length(entry.used.saturating_sub(at)).min(take));
        hasher.update(used);
        see(at, &Piece { used, behind })?;
        at += u64::try_from(take).expect("a piece is small");
    }
    Ok(hasher.finish())
}

fn damaged(entry: &BackedUpFile) -> StorageError {
    StorageError::BackupFile {
        path: entry.path.clone(),
    }
}
