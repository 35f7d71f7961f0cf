//! Making and opening a tenant.
//!
//! A tenant is made in steps, each durable before the next: 1. signer, 2. keyring of generation 0,
//! 3. log with its genesis record, 4. keyring of generation 1. A crash before 3 leaves keys of a log
//! that never was, which the next attempt replaces; a crash before 4 is made good at opening.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use kimberlite_crypto::log_id;
use kimberlite_kernel::{Command, State, apply_committed};
use kimberlite_projection::{Followers, STREAM_RUNS_NAME};
use kimberlite_storage::{
    AppendQueue, CheckpointStore, Damage, DamageKind, FrameBuilder, FramePlacement, FrameView,
    LogReader, OpenReport, StorageError, SyncStage, Witness, create_log, first_record, log_exists,
    open_observer, open_writer,
};
use kimberlite_types::{LogId, Position, RecordFlags, RecordKind, TenantName, Timestamp};
use zeroize::Zeroizing;

use crate::catalog::{Catalog, damage_at, replayed};
use crate::checkpoint::Checkpoints;
use crate::database::DatabaseShared;
use crate::engine::seal::Sealer;
use crate::engine::{CommitLock, Engine};
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::incarnation::{self, Incarnation};
use crate::keys::TenantKeys;
use crate::payload::Genesis;
use crate::project;
use crate::shown::Shown;
use crate::snapshot::{Derived, Kept, SnapshotMaker, Start};
use crate::streams::{RunPlace, RunStore};
use crate::tenant::{Tenant, TenantInner};

/// No log is begun at a time before this: 2020-01-01. A clock that nobody has set yet says less, and
/// all later times would be a jump from there.
const CLOCK_MIN: Timestamp = Timestamp::from_nanoseconds(1_577_836_800_000_000_000);

pub(crate) fn open_tenant(
    database: &Arc<DatabaseShared>,
    name: &TenantName,
    create: bool,
) -> Result<Tenant, Error> {
    let disk = &database.options.disk;
    let dir = database.tenant_dir(name);
    if !log_exists(disk.as_ref(), &dir)? {
        let keyring = database.keys.read_keyring(name)?;
        if keyring.is_some_and(|keyring| keyring.generation > 0) {
            return Err(Problem::LogMissing {
                name: name.as_str().to_owned(),
                path: dir,
            }
            .into());
        }
        if !create {
            return Err(Problem::NoTenant {
                name: name.as_str().to_owned(),
            }
            .into());
        }
        create_tenant(database, name)?;
    }
    // Whose log it is, and that its keys are at hand, is known before anything is changed.
    let known = known(database, name)?;
    let opened = if database.options.read_only {
        open_log(database, name, &known, observe)?
    } else {
        let opened = open_log(database, name, &known, write)?;
        database.keys.confirm(name, &known.keys.keyring)?;
        opened
    };
    finish(database, name, known, opened)
}

/// Opens a log from its newest snapshot. Where that does not succeed, for whatever reason, all of
/// the log is read: what is wrong with it is then told as if there had never been a snapshot.
fn open_log(
    database: &DatabaseShared,
    name: &TenantName,
    known: &Known,
    open: fn(&DatabaseShared, &TenantName, &Known, &Witness, Derived) -> Result<Opened, Error>,
) -> Result<Opened, Error> {
    if let Some(Start {
        base,
        derived,
        kept,
    }) = Start::find(&known.checkpoints, known.log_id)
    {
        let position = base.position.get();
        let witness = Witness {
            base: Some(base),
            ..known.witness.clone()
        };
        match open(database, name, known, &witness, derived) {
            Ok(opened) => return Ok(Opened { kept, ..opened }),
            Err(error) => {
                tracing::warn!(%error, position, "cannot open from a snapshot: the whole log is read");
            }
        }
    }
    open(database, name, known, &known.witness, Derived::default())
}

/// What is known of a tenant before its log is read.
struct Known {
    log_id: LogId,
    keys: TenantKeys,
    incarnation: Option<Incarnation>,
    checkpoints: Checkpoints,
    witness: Witness,
}

fn known(database: &DatabaseShared, name: &TenantName) -> Result<Known, Error> {
    let disk = &database.options.disk;
    let dir = database.tenant_dir(name);
    let first = first_record(disk, &dir)?;
    let log_id = log_id(first.payload());
    let genesis = Genesis::decode(first.payload()).ok_or(Problem::AdministrativeRecord {
        kind: "genesis",
        position: Position::ZERO,
    })?;
    let keys = database.keys.open_tenant(name, log_id)?;
    if genesis.public_key != keys.signer.public_key() {
        return Err(Problem::WrongSigner {
            name: name.as_str().to_owned(),
        }
        .into());
    }
    let incarnation = Incarnation::read(disk.as_ref(), &dir)?;
    let origin = incarnation::origin(&genesis.label, &log_id, incarnation.as_ref());
    let named = |origin: &str| keys.signer.verifier_key(origin).map_err(Problem::Origin);
    let ended = incarnation.iter().flat_map(|it| &it.ended);
    let earlier = ended.map(|ended| Ok((named(&ended.origin)?, ended.size.get())));
    let verifiers = (named(&origin)?, earlier.collect::<Result<_, Problem>>()?);
    let store = CheckpointStore::new(Arc::clone(disk), &dir);
    let (checkpoints, witness) = Checkpoints::open(store, origin, verifiers)?;
    Ok(Known {
        log_id,
        keys,
        incarnation,
        checkpoints,
        witness,
    })
}

impl Known {
    /// Refuses a record that begins an incarnation which the file beside the log does not know of:
    /// the log would go on under an older name.
    fn check_beginning(&self, frame: &FrameView) -> Result<(), Error> {
        let header = frame.header();
        let Some(kind @ (RecordKind::Restore | RecordKind::Recovery)) = header.kind else {
            return Ok(());
        };
        let position = header.base_position;
        let record = frame.record(position).map_err(StorageError::Corrupt)?;
        let knows = |it: &Incarnation| it.begins_at(position);
        if incarnation::begins(kind, record.payload())
            && !self.incarnation.as_ref().is_some_and(knows)
        {
            return Err(Problem::IncarnationRecord { position }.into());
        }
        Ok(())
    }
}

fn create_tenant(database: &DatabaseShared, name: &TenantName) -> Result<(), Error> {
    let options = &database.options;
    if options.clock.now() < CLOCK_MIN {
        return Err(Problem::ClockUnset.into());
    }
    let entropy = options.entropy.as_ref();
    let signer = database.keys.create_signer(name, entropy)?;
    let genesis = Genesis {
        random: random(entropy)?,
        public_key: signer.public_key(),
        label: name.as_str().to_owned(),
    };
    // The origin must be able to name a signing key; a tenant whose name cannot is refused now.
    signer
        .verifier_key(name.as_str())
        .map_err(Problem::Origin)?;
    let payload = genesis.encode();
    let log_id = log_id(&payload);
    database.keys.create_keyring(name, log_id, entropy)?;
    let time = options.clock.now();
    let command = Command::Genesis { log_id, time };
    let slot = *apply_committed(&mut State::new(), command)?.slot();
    let mut frame = FrameBuilder::new(RecordKind::Genesis, RecordFlags::PLAIN, 1, payload.len());
    frame.push(&payload);
    let placement = FramePlacement {
        base_position: slot.position,
        stream: slot.stream,
        base_offset: slot.offset,
        time: slot.time,
        session: slot.session,
        first_counter: slot.first_counter,
    };
    let dir = database.tenant_dir(name);
    create_log(
        &options.disk,
        &dir,
        &database.log_options,
        log_id,
        (frame.build(), placement),
    )?;
    Ok(())
}

struct Opened {
    engine: Option<Engine>,
    reader: LogReader,
    report: OpenReport,
    catalog: Catalog,
    /// The snapshot that it began at.
    kept: Kept,
}

fn write(
    database: &DatabaseShared,
    name: &TenantName,
    known: &Known,
    witness: &Witness,
    mut derived: Derived,
) -> Result<Opened, Error> {
    let mut visit = |frame: &FrameView| {
        known.check_beginning(frame).map_err(boxed)?;
        derived.apply(frame).map_err(boxed)
    };
    let options = &database.options;
    let dir = database.tenant_dir(name);
    let (log, report) = open_writer(
        &options.disk,
        &dir,
        database.log_options.clone(),
        witness,
        &mut visit,
    )?;
    let reader = log.reader();
    let Derived { state, catalog } = derived;
    let engine = Engine {
        log,
        state,
        clock: Arc::clone(&options.clock),
        sync_policy: options.sync_policy,
        session: None,
        groups: 0,
    };
    Ok(Opened {
        engine: Some(engine),
        reader,
        report,
        catalog,
        kept: Kept::default(),
    })
}

/// Reads as much as there is: behind an administrative record that cannot be read the catalog knows
/// no more, which is damage to be told like any other.
fn observe(
    database: &DatabaseShared,
    name: &TenantName,
    _: &Known,
    witness: &Witness,
    derived: Derived,
) -> Result<Opened, Error> {
    let mut catalog = derived.catalog;
    let mut unreadable = None;
    let mut visit = |frame: &FrameView| {
        if unreadable.is_none() {
            let applied = replayed(frame).and_then(|frame| catalog.apply(&frame));
            unreadable = applied.err().map(|error| damage_at(frame, &error));
        }
        Ok(())
    };
    let options = &database.options;
    let dir = database.tenant_dir(name);
    let (reader, mut report) = open_observer(
        &options.disk,
        &dir,
        &database.log_options,
        witness,
        &mut visit,
    )?;
    if let Some(damage) = unreadable {
        report.damage.push(damage);
        report.damage.sort_by_key(|damage| damage.position);
    }
    Ok(Opened {
        engine: None,
        reader,
        report,
        catalog,
        kept: Kept::default(),
    })
}

fn finish(
    database: &Arc<DatabaseShared>,
    name: &TenantName,
    known: Known,
    mut opened: Opened,
) -> Result<Tenant, Error> {
    if let Some(incarnation) = &known.incarnation {
        check_incarnation(incarnation, &mut opened)?;
    }
    let options = &database.options;
    let log_id = opened.reader.log_id();
    let (_, _, data_key) = known.keys.newest();
    let sealer = Sealer {
        log_id,
        encryption: options.encryption,
        name_key: data_key.name_key(&log_id),
        request_key: data_key.request_key(&log_id),
        salt_key: Zeroizing::new(random(options.entropy.as_ref())?),
        salts: AtomicU64::new(0),
    };
    let followers = Arc::new(Followers::new());
    let runs = Arc::new(run_store(database, name, &known.keys, &opened, &followers));
    let shown = Arc::new(Shown::new(
        opened.reader.clone(),
        opened.catalog,
        Arc::clone(&runs),
        Arc::clone(&followers),
    ));
    let stage = opened.engine.as_ref().map(|engine| engine.log.stage());
    if let Some(stage) = &stage {
        show_after(stage, &shown);
    }
    let snapshots = opened.engine.as_ref().map(|_| {
        Arc::new(SnapshotMaker::new(
            options,
            opened.reader.clone(),
            known.keys.signer.clone(),
            &known.checkpoints,
            (opened.kept, runs),
        ))
    });
    let inner = TenantInner {
        name: name.clone(),
        reader: opened.reader,
        report: opened.report,
        shown,
        sealer,
        keys: known.keys,
        checkpoints: known.checkpoints,
        incarnation: known.incarnation,
        snapshots,
        witnessed: known.witness.size(),
        opened: options.clock.now(),
        purging: Mutex::default(),
        purges: AtomicU64::new(0),
        caches: Mutex::default(),
        queue: Arc::new(AppendQueue::new(options.queue_limit)),
        stage,
        engine: opened.engine.map(CommitLock::new),
        projecting: Mutex::default(),
        followers,
        watched: AtomicBool::new(false),
        holder: database.opened.holder(),
        database: Arc::clone(database),
    };
    let tenant = Tenant::new(inner);
    settle(&tenant)?;
    Ok(tenant)
}

/// Where runs of streams are kept that are not in memory.
fn run_store(
    database: &DatabaseShared,
    name: &TenantName,
    keys: &TenantKeys,
    opened: &Opened,
    followers: &Arc<Followers>,
) -> RunStore {
    let options = &database.options;
    let log_id = opened.reader.log_id();
    RunStore::new(RunPlace {
        disk: Arc::clone(&options.disk),
        directory: project::projections_dir(database, name).join(STREAM_RUNS_NAME),
        options: project::store_options(options, keys, &log_id),
        runner: database.runner.handle(),
        followers: Arc::clone(followers),
        reader: opened.reader.clone(),
        read_only: options.read_only,
        runs_max: options.stream_runs_max,
        process_id: options.process_id,
    })
}

/// Has what a sync that nobody waits for has made durable shown.
fn show_after(stage: &SyncStage, shown: &Arc<Shown>) {
    let driven = Arc::clone(shown);
    stage.after_drive(move || {
        if let Err(error) = driven.show() {
            tracing::error!(%error, "cannot show what was appended");
        }
    });
}

/// Leaves a log that was just opened as a clean closing would: what is owed to it is recorded, and a
/// watermark says that the rest is durable.
fn settle(tenant: &Tenant) -> Result<(), Error> {
    let inner = tenant.inner();
    if inner.engine.is_none() {
        return Ok(());
    }
    inner.with_engine(|engine| incarnation::record_owed(inner, engine))?;
    tenant.settle()
}

/// Holds the log against the record with which its incarnation begins. For a reader another one is
/// damage like any other, which a repair has to be able to read past.
fn check_incarnation(incarnation: &Incarnation, opened: &mut Opened) -> Result<(), Error> {
    let (position, end) = (incarnation.position, opened.reader.end());
    let report = &mut opened.report;
    let told = !report.damage.is_empty() || report.rolled_back.is_some();
    if end == position || (end < position && told) {
        return Ok(());
    }
    let found = match opened.reader.record(position) {
        Ok(Some(record)) if incarnation.is_recorded_by(&record) => return Ok(()),
        Err(StorageError::Corrupt(damage)) => Err(damage),
        found => Ok(found?),
    };
    if opened.engine.is_some() {
        return Err(match found {
            Ok(_) => Problem::IncarnationRecord { position }.into(),
            Err(damage) => StorageError::Corrupt(damage).into(),
        });
    }
    let last = Position::new(end.get().saturating_sub(1));
    let damage = match (found, opened.reader.frame(position.min(last))) {
        (Err(damage), _) | (_, Err(StorageError::Corrupt(damage))) => damage,
        (Ok(_), frame) => Damage {
            position: position.min(end),
            ..frame?
                .ok_or(Problem::IncarnationRecord { position })?
                .damage(DamageKind::IncarnationRecord)
        },
    };
    report.damage.push(damage);
    report.damage.sort_by_key(|damage| damage.position);
    Ok(())
}

fn boxed(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error)
}
