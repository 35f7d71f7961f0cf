//! Projections of a tenant: state that follows its log, and is read at random.

mod source;
mod survey;

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use kimberlite_projection::store::{Applied, Identity, Store, StoreKey, StoreOptions};
use kimberlite_projection::{
    Follower, FollowerStatus, Named, Projection, Reads, Source as _, StoreTarget, Target,
    TargetError, WaitError,
};
use kimberlite_types::{LogId, Position, TenantName};

use self::source::LogSource;
pub use self::survey::ProjectionFiles;
use crate::database::DatabaseShared;
use crate::error::{Error, Problem};
use crate::keys::TenantKeys;
use crate::options::{Encryption, Options};
use crate::tenant::{Tenant, TenantInner};

impl Tenant {
    /// Has a projection follow the log for as long as the handle is there, in the background: it takes
    /// in what it does not have yet, and then what is appended. What it derives is kept in the tenant's
    /// directory, and derived anew when its version is another one, when it is damaged, and after a purge.
    ///
    /// ```
    /// use kimberlite::projection::store::{Snapshot, WriteTransaction};
    /// use kimberlite::projection::{ApplyError, Batch, Projection};
    /// use kimberlite::{Database, Event, ExpectedVersion};
    ///
    /// /// The newest event of each stream.
    /// struct Newest;
    ///
    /// impl Projection for Newest {
    ///     type View = Snapshot;
    ///
    ///     fn name(&self) -> &str {
    ///         "newest"
    ///     }
    ///
    ///     fn version(&self) -> u32 {
    ///         1
    ///     }
    ///
    ///     fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
    ///         for event in batch.events() {
    ///             if let Some((_, data)) = event.payload() {
    ///                 write.put(event.stream.as_bytes(), data)?;
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let db = Database::open(dir.path())?;
    /// let clinic = db.tenant("clinic-7")?;
    /// let newest = clinic.project(Newest)?;
    /// let patient = clinic.stream("patient/42")?;
    /// let receipt = patient.append(ExpectedVersion::Any, &[Event::new("moved", "ward 3")])?;
    /// newest.wait_for(receipt.last_position())?;
    /// assert_eq!(&*newest.view().find(b"patient/42")?.expect("it was appended"), b"ward 3");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the name of the projection is not
    ///   allowed, or one of that name runs already.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly): the database is open for reading only.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) and [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull):
    ///   its store cannot be opened or made.
    pub fn project<P: Projection>(&self, projection: P) -> Result<Projected<P>, Error> {
        self.inner().project(projection)
    }

    /// Returns what a projection makes of the log up to and with the record at `position`: all of it is derived
    /// in memory, which takes as long as reading the log does. Works beside a projection that runs, and in a
    /// database that is open for reading only.
    ///
    /// `progress` is told how far it is: everything before that position was taken in.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): nothing durable stands at `position` yet.
    /// * [`ErrorKind::Projection`](crate::ErrorKind::Projection): the projection failed.
    /// * [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): the log cannot be read.
    pub fn project_at<P: Projection>(
        &self,
        projection: &P,
        position: Position,
        progress: &mut dyn FnMut(Position),
    ) -> Result<P::View, Error> {
        self.inner().project_at(projection, position, progress)
    }

    /// Has something else than a store follow the log likewise: whatever `open` gives, which keeps its state and
    /// how far it is together, by itself.
    ///
    /// # Errors
    ///
    /// As [`project`](Self::project), and [`ErrorKind::Projection`](crate::ErrorKind::Projection) for those of
    /// `open`.
    pub fn project_into<T: Target + 'static>(
        &self,
        (name, version): (&str, u32),
        open: impl FnOnce(&TargetPlace<'_>) -> Result<T, TargetError>,
    ) -> Result<Followed, Error> {
        self.inner().project_into((name, version), open)
    }
}

/// Bytes of nodes that are put into pages together, which take less.
const SCRATCH_FLUSH_BYTES: usize = 64 << 20;

/// Whatever follows a tenant's log, for as long as this is there.
pub struct Followed {
    name: String,
    follower: Follower,
}

impl Followed {
    /// Waits until the record at `position` was taken in, such as that of an append that should be
    /// seen; a minute at most.
    ///
    /// # Errors
    ///
    /// As [`wait_for_at_most`](Self::wait_for_at_most).
    pub fn wait_for(&self, position: Position) -> Result<(), Error> {
        self.wait_for_at_most(position, Duration::from_mins(1))
    }

    /// Waits likewise, for as long as `timeout` says.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Projection`](crate::ErrorKind::Projection): it stands still.
    /// * [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut): it has not got there in time; the record may
    ///   not be durable yet.
    pub fn wait_for_at_most(&self, position: Position, timeout: Duration) -> Result<(), Error> {
        let waited = self.follower.wait_for(position, timeout);
        waited.map_err(|error| match error {
            WaitError::TimedOut { applied } => {
                Problem::ProjectionBehind { applied, position }.into()
            }
            other => self.failed(other),
        })
    }

    /// Returns where it is.
    pub fn status(&self) -> FollowerStatus {
        self.follower.status()
    }

    /// Derives all anew, in the background. What is there can be read until that is done.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Projection`](crate::ErrorKind::Projection): it could not begin.
    pub fn rebuild(&self) -> Result<(), Error> {
        self.follower.rebuild().map_err(|error| self.failed(error))
    }

    /// Tries again what it stands still at.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Projection`](crate::ErrorKind::Projection): it could not begin.
    pub fn retry(&self) -> Result<(), Error> {
        self.follower.retry().map_err(|error| self.failed(error))
    }

    /// Makes durable what was taken in, so that it need not be derived again after a crash. This
    /// happens by itself, now and then and when the handle goes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Projection`](crate::ErrorKind::Projection): it could not be written.
    pub fn flush(&self) -> Result<(), Error> {
        self.follower.flush().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        cannot_go_on(&self.name, source)
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.status()).finish()
    }
}

fn cannot_go_on(name: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Problem::Projection {
        name: name.to_owned(),
        source: Box::new(source),
    }
    .into()
}

/// A projection that follows a tenant's log. It stops when this goes.
pub struct Projected<P> {
    followed: Followed,
    reads: Reads,
    projection: Arc<P>,
}

impl<P: Projection> Projected<P> {
    /// Returns the projection.
    pub fn projection(&self) -> &P {
        &self.projection
    }

    /// Returns the newest state, which stays as it is for as long as it is held: that of some prefix of the
    /// log, which may end before the newest record.
    pub fn view(&self) -> P::View {
        P::View::from(self.reads.snapshot())
    }
}

// Projections need not be shown.
impl<P> fmt::Debug for Projected<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Projected").field(&self.followed).finish()
    }
}

impl<P> Deref for Projected<P> {
    type Target = Followed;

    fn deref(&self) -> &Followed {
        &self.followed
    }
}

/// Where a target that keeps its state itself may keep it.
pub struct TargetPlace<'a> {
    /// A directory of its own, which exists.
    pub directory: &'a Path,
    /// What its state is derived from now: one that was derived from something else is begun anew.
    pub identity: Identity,
    source: &'a LogSource,
}

impl TargetPlace<'_> {
    /// Whether a state that was derived up to `applied` is one of this log; where it is not, it is begun anew.
    pub fn knows(&self, applied: Applied) -> bool {
        self.source.knows(applied)
    }
}

impl fmt::Debug for TargetPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetPlace")
            .field("directory", &self.directory)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Where what projections of a tenant derive is kept.
pub(crate) fn projections_dir(database: &DatabaseShared, tenant: &TenantName) -> PathBuf {
    database.tenant_dir(tenant).join("projections")
}

/// How stores of a tenant are kept: encrypted under its newest key, unless it is not.
pub(crate) fn store_options(options: &Options, keys: &TenantKeys, log_id: &LogId) -> StoreOptions {
    let mut store = StoreOptions::default();
    if options.encryption != Encryption::Off {
        let (_, _, data_key) = keys.newest();
        let key = data_key.projection_key(log_id);
        store.key = Some(StoreKey::new(key, Arc::clone(&options.entropy)));
    }
    store
}

impl TenantInner {
    /// Keeps whoever begins a projection, or touches its files, from others.
    fn projecting(&self) -> MutexGuard<'_, ()> {
        let projecting = &self.projecting;
        projecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what projections of the tenant derive is kept.
    fn projections_dir(&self) -> PathBuf {
        projections_dir(&self.database, &self.name)
    }

    fn project<P: Projection>(self: &Arc<Self>, projection: P) -> Result<Projected<P>, Error> {
        let projection = Arc::new(projection);
        let mut reads = None;
        let named = (projection.name(), projection.version());
        let followed = self.project_into(named, |place| {
            let target = StoreTarget::open(
                Arc::clone(&self.database.options.disk),
                place.directory,
                (Arc::clone(&projection), place.identity),
                self.store_options(),
                &|applied| place.knows(applied),
            )?;
            reads = Some(target.reads());
            Ok(target)
        })?;
        Ok(Projected {
            followed,
            reads: reads.expect("its target was opened"),
            projection,
        })
    }

    fn store_options(&self) -> StoreOptions {
        store_options(&self.database.options, &self.keys, &self.reader.log_id())
    }

    fn project_at<P: Projection>(
        &self,
        projection: &P,
        position: Position,
        progress: &mut dyn FnMut(Position),
    ) -> Result<P::View, Error> {
        let end = self.reader.durable();
        if position >= end {
            return Err(Problem::NotWritten { position, end }.into());
        }
        let name = projection.name();
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Problem::Projection {
            name: name.to_owned(),
            source: error,
        };
        let identity = Identity::new(self.reader.log_id(), name, projection.version());
        let store = Store::in_memory(identity, StoreOptions::default());
        let mut store = store.map_err(|error| failed(error.into()))?;
        let behind = Position::new(position.get() + 1);
        source::read_before(self, behind, &mut |batch| {
            let mut write = store.write();
            projection.apply(batch, &mut write).map_err(failed)?;
            let committed = write.commit(batch.end());
            committed.map_err(|error| failed(error.into()))?;
            if store.pending_bytes() >= SCRATCH_FLUSH_BYTES {
                store.flush().map_err(|error| failed(error.into()))?;
            }
            progress(batch.end().position);
            Ok(())
        })?;
        Ok(P::View::from(store.snapshot()))
    }

    fn project_into<T: Target + 'static>(
        self: &Arc<Self>,
        (name, version): (&str, u32),
        open: impl FnOnce(&TargetPlace<'_>) -> Result<T, TargetError>,
    ) -> Result<Followed, Error> {
        self.check_writable()?;
        // What names a tenant may name a projection, and both name a directory.
        if TenantName::new(name).is_err() {
            let name = name.to_owned();
            return Err(Problem::ProjectionName { name }.into());
        }
        // Two of a name would have the same files.
        let _alone = self.projecting();
        if self.followers.has(name) {
            let name = name.to_owned();
            return Err(Problem::ProjectionRuns { name }.into());
        }
        let directory = self.projections_dir().join(name);
        self.database.options.disk.create_dir_all(&directory)?;
        let source = Arc::new(LogSource::new(self));
        let place = TargetPlace {
            directory: &directory,
            identity: source.identity(name, version),
            source: &source,
        };
        let target = open(&place).map_err(|error| cannot_go_on(name, error))?;
        let named = Named {
            name: name.to_owned(),
            version,
        };
        let runner = self.database.runner.handle();
        let follower = runner.follow(&self.followers, named, source, Box::new(target));
        Ok(Followed {
            name: name.to_owned(),
            follower: follower.map_err(|error| cannot_go_on(name, error))?,
        })
    }
}
