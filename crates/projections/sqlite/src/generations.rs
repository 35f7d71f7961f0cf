//! The files of a projection: `data-<n>.sqlite`, and the link `data.sqlite` to the one that is read.
//!
//! What is rebuilt is built in a file with the next number:
//!
//! 1. `data-<n+1>.sqlite` is made, and takes in the log. A crash leaves it as far as it got, and the link as it was.
//! 2. Once it has the whole log it is flushed, and the directory synced.
//! 3. A new link is renamed over `data.sqlite`, and the directory synced. A crash leaves one of the two.
//! 4. The old file and what `SQLite` keeps beside it are removed. A crash leaves them to the next opening.
//!
//! `SQLite` follows the link before it names the files beside a database, so that nobody ever takes the write-ahead
//! log of one file for that of another; which is what would happen if a file took the place of another.

#![expect(
    clippy::disallowed_methods,
    reason = "SQLite reads and writes the files by itself, so they stand where the system has them"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

pub(crate) const LINK: &str = "data.sqlite";
const LINK_NEW: &str = "data.sqlite.new";
const PREFIX: &str = "data-";
const SUFFIX: &str = ".sqlite";
/// What `SQLite` keeps beside a file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

#[derive(Debug)]
pub(crate) struct Generations {
    directory: PathBuf,
}

impl Generations {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_path_buf(),
        }
    }

    /// The link to the file that is read.
    pub(crate) fn link(&self) -> PathBuf {
        self.directory.join(LINK)
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{PREFIX}{number}{SUFFIX}"))
    }

    /// The number of the file that is read; none when there is no link to one.
    pub(crate) fn linked(&self) -> io::Result<Option<u64>> {
        match fs::read_link(self.link()) {
            Ok(target) => Ok(target.to_str().and_then(number_of)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The numbers of all files, in order.
    pub(crate) fn all(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().map(base_of).and_then(number_of));
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Makes an empty file that nobody else may read; what `SQLite` makes beside it is likewise.
    pub(crate) fn make(&self, number: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600);
        made.open(self.path(number)).map(drop)
    }

    /// Links to a file that is durable.
    pub(crate) fn publish(&self, number: u64) -> io::Result<()> {
        self.sync()?;
        let (new, path) = (self.directory.join(LINK_NEW), self.path(number));
        remove(&new)?;
        symlink(path.file_name().unwrap_or_default(), &new)?;
        fs::rename(&new, self.link())?;
        self.sync()
    }

    /// Removes a file and what stands beside it.
    pub(crate) fn remove(&self, number: u64) -> io::Result<()> {
        let path = self.path(number);
        remove(&path)?;
        for end in BESIDE {
            let mut beside = path.clone().into_os_string();
            beside.push(end);
            remove(Path::new(&beside))?;
        }
        Ok(())
    }

    /// Removes all files but these.
    pub(crate) fn keep(&self, kept: &[u64]) -> io::Result<()> {
        let others = self.all()?.into_iter().filter(|it| !kept.contains(it));
        let others = others.collect::<Vec<_>>();
        for number in &others {
            self.remove(*number)?;
        }
        if others.is_empty() {
            Ok(())
        } else {
            self.sync()
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name of the file that another one stands beside, or its own.
fn base_of(name: &str) -> &str {
    let base = BESIDE.iter().find_map(|end| name.strip_suffix(end));
    base.unwrap_or(name)
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
}
