//! A projection with the store that it derives.
//!
//! The store stands in the file `store` of the projection's directory. What is rebuilt is built in
//! `store.new`, beside it:
//!
//! 1. `store.new` is made, and takes in the log. A crash leaves it as far as it was flushed; an opening that
//!    cannot use `store` goes on from there, and one that can removes it.
//! 2. Once it has the whole log it is flushed.
//! 3. It is renamed to `store`, and the directory synced. A crash leaves one of the two, whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use kimberlite_disk::{Disk, DiskError};
use kimberlite_types::Position;

use crate::batch::Batch;
use crate::projection::Projection;
use crate::store::{
    Applied, Flush, Identity, Snapshot, Store, StoreError, StoreOptions, StoreReader,
};
use crate::target::{Target, TargetError};

/// What the file of the store is called.
pub const STORE_FILE: &str = "store";
/// What the file is called that will take its place.
pub const STORE_NEW_FILE: &str = "store.new";

/// A projection with the store that it derives.
#[derive(Debug)]
pub struct StoreTarget<P> {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: StoreOptions,
    projection: Arc<P>,
    /// What is read; none where what was there cannot be.
    current: Option<Store>,
    /// What will take its place.
    building: Option<Store>,
    identity: Identity,
    reads: Reads,
}

/// Reads the state that a target has, also after a rebuild.
#[derive(Clone, Debug)]
pub struct Reads {
    reader: Arc<RwLock<StoreReader>>,
}

impl Reads {
    /// The newest state that was committed.
    pub fn snapshot(&self) -> Snapshot {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        reader.snapshot()
    }

    fn turn_to(&self, store: &Store) {
        let mut reader = self.reader.write().unwrap_or_else(PoisonError::into_inner);
        *reader = store.reader();
    }
}

impl<P: Projection> StoreTarget<P> {
    /// Opens the store of a projection in `directory`, which exists, and makes it when there is none. One of another
    /// identity, or one that `is_prefix` does not know for a state of the log, is left aside and a new one built.
    ///
    /// # Errors
    ///
    /// Errors of the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        (projection, identity): (Arc<P>, Identity),
        options: StoreOptions,
        is_prefix: &dyn Fn(Applied) -> bool,
    ) -> Result<Self, StoreError> {
        let path = directory.join(STORE_FILE);
        let open = |path: &Path| usable((&*disk, path), identity, &options, is_prefix);
        let (current, building) = match open(&path)? {
            Found::Usable(store) => {
                remove_if_there(&*disk, &directory.join(STORE_NEW_FILE))?;
                (Some(*store), None)
            }
            Found::Nothing => (None, None),
            Found::Unusable => match open(&directory.join(STORE_NEW_FILE))? {
                Found::Usable(store) => (None, Some(*store)),
                Found::Nothing | Found::Unusable => {
                    (None, Some(begin(&*disk, directory, identity, &options)?))
                }
            },
        };
        let current = match (current, &building) {
            (None, None) => Some(Store::create(&*disk, &path, identity, options.clone())?),
            (current, _) => current,
        };
        let read = current.as_ref().or(building.as_ref());
        let reader = read.expect("one of the two was opened").reader();
        Ok(Self {
            disk,
            directory: directory.to_path_buf(),
            options,
            projection,
            current,
            building,
            identity,
            reads: Reads {
                reader: Arc::new(RwLock::new(reader)),
            },
        })
    }

    /// What reads it.
    pub fn reads(&self) -> Reads {
        self.reads.clone()
    }

    fn store(&self) -> &Store {
        let store = self.building.as_ref().or(self.current.as_ref());
        store.expect("a target has one of the two")
    }

    fn store_mut(&mut self) -> &mut Store {
        let store = self.building.as_mut().or(self.current.as_mut());
        store.expect("a target has one of the two")
    }
}

impl<P: Projection> Target for StoreTarget<P> {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn applied(&self) -> Applied {
        self.store().applied()
    }

    fn readable(&self) -> Position {
        let store = self.current.as_ref().or(self.building.as_ref());
        let store = store.expect("a target has one of the two");
        store.applied().position
    }

    fn is_rebuilding(&self) -> bool {
        self.building.is_some()
    }

    fn is_damaged(&self) -> bool {
        self.store().is_damaged()
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), TargetError> {
        let projection = Arc::clone(&self.projection);
        let mut write = self.store_mut().write();
        if let Err(source) = projection.apply(batch, &mut write) {
            return Err(match source.downcast::<StoreError>() {
                Ok(error) => told(*error),
                Err(source) => TargetError::Failed {
                    position: batch.first(),
                    source,
                },
            });
        }
        write.commit(batch.end()).map_err(told)
    }

    fn pending_bytes(&self) -> usize {
        self.store().pending_bytes()
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        self.store_mut().flush().map_err(told)
    }

    fn begin_flush(&mut self) -> Result<Option<Flush>, TargetError> {
        self.store_mut().begin_flush().map_err(told)
    }

    fn end_flush(&mut self) -> Result<bool, TargetError> {
        self.store_mut().end_flush().map_err(told)
    }

    fn finish_flush(&mut self) -> Result<(), TargetError> {
        self.store_mut().finish_flush().map_err(told)
    }

    fn rebuild(&mut self, identity: Identity) -> Result<(), TargetError> {
        let store = begin(&*self.disk, &self.directory, identity, &self.options)?;
        if self.current.is_none() {
            self.reads.turn_to(&store);
        }
        self.building = Some(store);
        self.identity = identity;
        Ok(())
    }

    fn caught_up(&mut self) -> Result<(), TargetError> {
        let Some(building) = &mut self.building else {
            return Ok(());
        };
        building.flush().map_err(told)?;
        let directory = self
            .disk
            .open_dir(&self.directory)
            .map_err(StoreError::from)?;
        let (from, to) = (
            self.directory.join(STORE_NEW_FILE),
            self.directory.join(STORE_FILE),
        );
        self.disk.rename(&from, &to).map_err(StoreError::from)?;
        directory.sync().map_err(StoreError::from)?;
        self.reads.turn_to(building);
        self.current = self.building.take();
        Ok(())
    }

    fn recover(&mut self) -> Result<(), TargetError> {
        if !self.store().is_poisoned() {
            return Ok(());
        }
        // What was committed and not flushed is derived again. Two may not write one file.
        self.store_mut().stop_flush();
        let name = if self.building.is_some() {
            STORE_NEW_FILE
        } else {
            STORE_FILE
        };
        let path = self.directory.join(name);
        let options = self.options.clone();
        let opened = Store::open(&*self.disk, &path, self.identity, options).map_err(told)?;
        if self.building.is_none() || self.current.is_none() {
            self.reads.turn_to(&opened);
        }
        *self.store_mut() = opened;
        Ok(())
    }
}

/// What was found of a store.
enum Found {
    Nothing,
    Usable(Box<Store>),
    Unusable,
}

fn usable(
    (disk, path): (&dyn Disk, &Path),
    identity: Identity,
    options: &StoreOptions,
    is_prefix: &dyn Fn(Applied) -> bool,
) -> Result<Found, StoreError> {
    match Store::open(disk, path, identity, options.clone()) {
        Ok(store) if is_prefix(store.applied()) => Ok(Found::Usable(Box::new(store))),
        Err(StoreError::Disk(DiskError::NotFound { .. })) => Ok(Found::Nothing),
        Err(error @ (StoreError::Disk(_) | StoreError::Entropy { .. })) => Err(error),
        Ok(_) | Err(_) => Ok(Found::Unusable),
    }
}

/// Makes `store.new`, in the place of one that may be there.
fn begin(
    disk: &dyn Disk,
    directory: &Path,
    identity: Identity,
    options: &StoreOptions,
) -> Result<Store, StoreError> {
    let path = directory.join(STORE_NEW_FILE);
    remove_if_there(disk, &path)?;
    Store::create(disk, &path, identity, options.clone())
}

/// Removes what a projection has stored in `directory`, whose target is gone, durably.
///
/// # Errors
///
/// Errors of the disk.
pub fn remove_stores(disk: &dyn Disk, directory: &Path) -> Result<(), StoreError> {
    for name in [STORE_FILE, STORE_NEW_FILE] {
        remove_if_there(disk, &directory.join(name))?;
    }
    Ok(disk.sync_dir(directory)?)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.remove(path) {
        Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells damage, after which the store is rebuilt, from what may pass.
fn told(error: StoreError) -> TargetError {
    match &error {
        StoreError::Damaged { path, .. }
        | StoreError::NoSuperblock { path }
        | StoreError::WrongKey { path }
        | StoreError::Encrypted { path }
        | StoreError::NotEncrypted { path }
        | StoreError::Foreign { path } => TargetError::Damaged {
            path: path.clone(),
            source: Box::new(error),
        },
        _ => TargetError::Store(error),
    }
}
