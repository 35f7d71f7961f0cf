//! What can go wrong on a disk. Every error names the path, and the operation where it is not
//! plain from the kind.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A disk operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no file or directory of this name.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
    },
    /// A file or directory of this name is there already.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// What was to be created.
        path: PathBuf,
    },
    /// The lock is held by another process or by another handle in this one.
    #[error("{} is locked{}; close it there first", path.display(), Holder(*holder))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that wrote its id into the lock file, as far as known.
        holder: Option<u32>,
    },
    /// The disk, or the quota on it, is full.
    #[error("no space is left on the disk of {}; make space and try again", path.display())]
    Full {
        /// What was written to.
        path: PathBuf,
    },
    /// The process, or the machine, has as many files open as it may.
    #[error(
        "cannot {operation} {}: too many files are open; raise the limit (ulimit -n), or open fewer \
         tenants at a time",
        path.display()
    )]
    TooManyOpen {
        /// What was to be opened.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
    },
    /// The file ends before the bytes that were asked for.
    #[error("{} ends before byte {}", path.display(), offset.saturating_add(*bytes))]
    ShortRead {
        /// The file.
        path: PathBuf,
        /// Where the read started.
        offset: u64,
        /// How many bytes were asked for.
        bytes: u64,
    },
    /// The file is larger than the caller is ready to read.
    #[error("{} has {bytes} bytes, more than the {bytes_max} that it may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The longest that the caller reads.
        bytes_max: u64,
    },
    /// The operating system or the device refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What was tried, as a verb: "sync", "rename".
        operation: &'static str,
        /// The reason that the operating system gave.
        source: io::Error,
    },
}

impl DiskError {
    /// Sorts an error of the operating system into the kinds that callers act on.
    pub fn from_io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(&source) {
            return Self::TooManyOpen { path, operation };
        }
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io {
                path,
                operation,
                source,
            },
        }
    }

    /// The file or directory that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::AlreadyExists { path }
            | Self::Locked { path, .. }
            | Self::TooManyOpen { path, .. }
            | Self::Full { path }
            | Self::ShortRead { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// Whether the name was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// " by process 42", or nothing when the holder is unknown.
struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " by process {pid}"),
            None => f.write_str(" by another handle"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operating_system_errors_become_the_kinds_that_callers_act_on() {
        let path = Path::new("/db/LOCK");
        let of = |kind: io::ErrorKind| DiskError::from_io(path, "sync", kind.into());
        assert!(of(io::ErrorKind::NotFound).is_not_found());
        assert!(matches!(
            of(io::ErrorKind::AlreadyExists),
            DiskError::AlreadyExists { .. }
        ));
        assert!(matches!(
            of(io::ErrorKind::StorageFull),
            DiskError::Full { .. }
        ));
        assert!(matches!(
            of(io::ErrorKind::QuotaExceeded),
            DiskError::Full { .. }
        ));
        assert!(matches!(
            of(io::ErrorKind::TimedOut),
            DiskError::Io {
                operation: "sync",
                ..
            }
        ));
        assert_eq!(of(io::ErrorKind::TimedOut).path(), path);
    }

    #[test]
    fn messages_name_path_operation_and_holder() {
        let path = PathBuf::from("/db/LOCK");
        let shown = |error: DiskError| error.to_string();
        assert_eq!(
            shown(DiskError::Locked {
                path: path.clone(),
                holder: Some(42)
            }),
            "/db/LOCK is locked by process 42; close it there first"
        );
        assert_eq!(
            shown(DiskError::ShortRead {
                path: path.clone(),
                offset: 8,
                bytes: 4
            }),
            "/db/LOCK ends before byte 12"
        );
        assert_eq!(
            shown(DiskError::from_io(
                &path,
                "sync",
                io::Error::from_raw_os_error(5)
            )),
            "cannot sync /db/LOCK"
        );
        let exhausted = DiskError::from_io(&path, "open", io::Error::from_raw_os_error(24));
        assert!(shown(exhausted).contains("ulimit -n"));
    }
}
