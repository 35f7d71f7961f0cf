//! Going on from a damaged or rolled back log, at the price of what cannot be read.
//!
//! Order: 1. the file of a new incarnation is durable, so that from here on nothing is signed under
//! the name under which the lost records were, 2. the log is cut (see [`LogCut`]), 3. checkpoints of
//! lost records are set aside, 4. the log is opened, which appends the recovery record that says what
//! was lost. A crash after 1 leaves a log that is still refused, or one that was only rolled back and
//! goes on as the new incarnation; the same repair goes on from any of these.

use std::path::PathBuf;
use std::sync::Arc;

use kimberlite_storage::{DamageKind, LogCut, Statement, set_aside};
use kimberlite_types::{ChainHash, Position, RootHash, TenantName};

use crate::checkpoint::Checkpoint;
use crate::database::Database;
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::incarnation::{Beginning, Cause, Incarnation};
use crate::options::{DatabaseBuilder, Options};
use crate::tenant::{Tenant, TenantInner};

/// How a tenant is repaired.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RepairOptions {
    accept_loss: bool,
}

/// What a repair did, or would do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairReport {
    /// What is wrong with the log; empty when nothing has to be repaired.
    pub problems: Vec<String>,
    /// The position at which the log ends after the repair.
    pub end: Position,
    /// How many records there were, as far as can be told: those from `end` on are lost.
    pub known_end: Position,
    /// The segment in which the log ends, and its byte.
    pub cut_at: (String, u64),
    /// Segments behind it that are set aside whole.
    pub segments: Vec<String>,
    /// Sizes of checkpoints that are set aside.
    pub checkpoints: Vec<u64>,
    /// Whether it was done.
    pub done: bool,
    /// The origin of checkpoints from now on, when it was done.
    pub origin: Option<String>,
}

impl RepairOptions {
    /// The defaults: it is only said what would be lost.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up what cannot be read and all that stands behind it.
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.accept_loss = accept;
        self
    }
}

impl DatabaseBuilder {
    /// Makes a tenant whose log is damaged or was rolled back writable again, by ending its log
    /// before the first thing that cannot be read. Everything behind that is lost to readers, also
    /// what is sound; its bytes are kept beside the log.
    ///
    /// The log goes on as a new incarnation: its checkpoints have a new origin, since those of the
    /// old one may speak of records that are lost. Without
    /// [`accept_loss`](RepairOptions::accept_loss) nothing is changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) when nothing can be kept, and as
    /// [`DatabaseBuilder::open`] and [`Database::tenant`]. A repair that failed on the way can be
    /// run again.
    pub fn repair(self, tenant: &str, options: &RepairOptions) -> Result<RepairReport, Error> {
        let (path, database) = self.into_parts();
        let name = TenantName::new(tenant)?;
        let writer = Options {
            create: false,
            read_only: false,
            background: false,
            ..database.clone()
        };
        // Takes the lock, and opens no tenant yet.
        let writer = Database::open_with(path.clone(), writer)?;
        let reader = Options {
            read_only: true,
            ..database
        };
        let reader = Database::open_with(path, reader)?;
        let tenant = reader.existing_tenant(name.as_str())?;
        let repair = Repair::plan(&writer, tenant)?;
        let mut report = repair.report();
        if report.problems.is_empty() || !options.accept_loss {
            return Ok(report);
        }
        repair.make(&writer)?;
        drop(repair);
        let tenant = writer.existing_tenant(name.as_str())?;
        report.done = true;
        report.origin = Some(tenant.inner().checkpoints.origin().to_owned());
        drop(tenant);
        writer.close()?;
        Ok(report)
    }
}

struct Repair {
    /// Opened for reading.
    tenant: Tenant,
    dir: PathBuf,
    problems: Vec<String>,
    /// Whether an earlier repair came as far as the new incarnation, whose record is still owed.
    begun: bool,
    cut: LogCut,
    /// Sizes of checkpoints of records that an earlier repair has cut off.
    left_over: Vec<Position>,
    newest: Option<Checkpoint>,
    /// All checkpoint files, by the size in their name.
    sizes: Vec<Position>,
}

impl Repair {
    fn plan(writer: &Database, tenant: Tenant) -> Result<Self, Error> {
        let inner = tenant.inner();
        let disk = inner.database.options.disk.as_ref();
        let dir = writer.shared().tenant_dir(&inner.name);
        let checkpoints = inner.all_checkpoints()?;
        let sound = checkpoints.iter().filter_map(|(_, it)| it.as_ref().ok());
        let mut sound = sound.cloned().collect::<Vec<_>>();
        sound.sort_by_key(Checkpoint::size);
        let sizes = sound.iter().map(Checkpoint::position).collect::<Vec<_>>();
        let log = kimberlite_storage::verify(&inner.reader, disk, &sizes, &mut |_| {})?;
        let mut problems = Vec::new();
        let mut at = inner.reader.end();
        // A seal that does not match is made anew by any opening.
        let damage = inner.report.damage.iter().chain(&log.damage);
        for damage in damage.filter(|damage| damage.kind != DamageKind::SealMismatch) {
            problems.push(damage.to_string());
            // A file that was cut short may have lost nothing but free space.
            if !matches!(damage.kind, DamageKind::SegmentBytes { .. }) {
                at = at.min(damage.position);
            }
        }
        problems.dedup();
        if let Some(size) = inner.report.rolled_back {
            problems.push(format!(
                "the log has {at} records, a checkpoint vouches for {size}"
            ));
        }
        let mut agreed = Position::ZERO;
        for checkpoint in &sound {
            let size = checkpoint.position();
            let found = log.at_sizes.iter().find(|(at, _, _)| *at == size);
            match found {
                Some((_, root, chain))
                    if (*root, *chain) == (checkpoint.root(), checkpoint.chain()) =>
                {
                    agreed = size;
                }
                Some(_) => {
                    problems.push(format!(
                        "the checkpoint of {size} records signed another log"
                    ));
                    at = at.min(agreed);
                    break;
                }
                None => {}
            }
        }
        let cut = LogCut::plan(disk, &dir, at)?;
        Ok(Self {
            newest: sound.pop(),
            dir,
            problems,
            begun: is_begun(inner, cut.position)?,
            cut,
            left_over: inner.checkpoints.left_over()?,
            sizes: inner.checkpoints.sizes()?,
            tenant,
        })
    }

    /// Whether the log itself has to be repaired, and not only what stands beside it.
    fn cuts(&self) -> bool {
        self.begun || !self.problems.is_empty()
    }

    fn all_problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        if self.begun {
            problems.push("a repair of this log was begun and is not finished".to_owned());
        }
        let left_over = self.left_over.iter();
        problems.extend(left_over.map(|size| {
            format!("the checkpoint of {size} records speaks of some that a repair has cut off")
        }));
        if self.left_over.is_empty() && self.tenant.inner().checkpoints.shows_left_over() {
            problems.push("the file checkpoint speaks of records that a repair has cut off".into());
        }
        problems
    }

    fn known_end(&self) -> Position {
        if !self.cuts() {
            return self.cut.position;
        }
        let newest = self.newest.as_ref().map(Checkpoint::position);
        let named = self.sizes.last().copied();
        let begun = self.tenant.inner().incarnation.as_ref();
        let begun = begun.filter(|_| self.begun).map(|it| it.known_end);
        let seen = [newest, named, begun].into_iter().flatten();
        seen.fold(self.cut.known_end, Position::max)
    }

    fn lost_checkpoints(&self) -> impl Iterator<Item = Position> {
        let sizes = self.sizes.iter().copied();
        sizes.filter(|&size| {
            (self.cuts() && size > self.cut.position) || self.left_over.contains(&size)
        })
    }

    fn report(&self) -> RepairReport {
        let name = |base: &Position| format!("{:020}.seg", base.get());
        RepairReport {
            problems: self.all_problems(),
            end: self.cut.position,
            known_end: self.known_end(),
            cut_at: (name(&self.cut.segment_base), self.cut.byte),
            segments: self.cut.segments.iter().map(name).collect(),
            checkpoints: self.lost_checkpoints().map(Position::get).collect(),
            done: false,
            origin: None,
        }
    }

    fn make(&self, writer: &Database) -> Result<(), Error> {
        let options = &writer.shared().options;
        let disk = Arc::clone(&options.disk);
        let inner = self.tenant.inner();
        if self.cuts() && !self.begun {
            let stated = self.newest.as_ref().map_or(
                Statement {
                    size: Position::ZERO,
                    root: RootHash::new([0; 32]),
                    chain: ChainHash::new([0; 32]),
                },
                |newest| Statement {
                    size: newest.position(),
                    root: newest.root(),
                    chain: newest.chain(),
                },
            );
            let of = Beginning {
                cause: Cause::Repaired,
                before: inner.incarnation.as_ref(),
                origin: inner.checkpoints.origin().to_owned(),
                position: self.cut.position,
                known_end: self.known_end(),
                stated,
            };
            let token = random(options.entropy.as_ref())?;
            let next = Incarnation::begin(of, token).ok_or(Problem::TooManyIncarnations)?;
            next.write(disk.as_ref(), &self.dir)?;
        }
        if self.cuts() {
            self.cut.make(disk.as_ref(), &self.dir)?;
        }
        for size in self.lost_checkpoints() {
            for ending in ["note", "state"] {
                let name = format!("checkpoints/{:020}.{ending}", size.get());
                set_aside(disk.as_ref(), &self.dir.join(name))?;
            }
        }
        let shown = inner.checkpoints.shown();
        let kept = |it: &Checkpoint| it.position() <= self.cut.position;
        if shown.is_some_and(|shown| !shown.as_ref().is_ok_and(kept)) {
            set_aside(disk.as_ref(), &self.dir.join("checkpoint"))?;
        }
        Ok(())
    }
}

/// Whether a repair that cuts at `position` is to go on with the incarnation that is there. One that
/// has signed anything is over: its notes speak of records that are lost.
fn is_begun(inner: &TenantInner, position: Position) -> Result<bool, Error> {
    let Some(incarnation) = &inner.incarnation else {
        return Ok(false);
    };
    if incarnation.cause != Cause::Repaired || incarnation.position != position {
        return Ok(false);
    }
    let record = inner.reader.record(position).ok().flatten();
    let recorded = record.is_some_and(|record| incarnation.is_recorded_by(&record));
    Ok(!recorded && !inner.checkpoints.names_this_incarnation()?)
}
