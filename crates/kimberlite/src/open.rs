//! Making and opening a tenant.
//!
//! A tenant is made in steps, each durable before the next: 1. signer, 2. keyring of generation 0,
//! 3. log with its genesis record, 4. keyring of generation 1. A crash before 3 leaves keys of a log
//! that never was, which the next attempt replaces; a crash before 4 is made good at opening.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use kimberlite_crypto::log_id;
use kimberlite_kernel::{Command, State, apply_committed, replay};
use kimberlite_storage::{
    CheckpointStore, FrameBuilder, FramePlacement, FrameView, LogReader, OpenReport, create_log,
    log_exists, open_observer, open_writer,
};
use kimberlite_types::{LogId, Position, RecordFlags, RecordKind, TenantName, Timestamp};

use crate::catalog::{Catalog, replayed};
use crate::database::DatabaseShared;
use crate::engine::seal::Sealer;
use crate::engine::{Engine, Group};
use crate::environment::random;
use crate::error::{Error, Problem};
use crate::payload::{Genesis, encode_recovery};
use crate::tenant::{Tenant, TenantInner, unlock};

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
    let opened = if database.options.read_only {
        observe(database, name)?
    } else {
        let opened = write(database, name)?;
        let (log_id, mut keyring) = (opened.reader.log_id(), opened.keyring_to_confirm.clone());
        debug_assert!(
            keyring
                .as_ref()
                .is_none_or(|keyring| keyring.log_id == log_id)
        );
        if let Some(keyring) = &mut keyring {
            database.keys.confirm(name, keyring)?;
        }
        opened
    };
    finish(database, name, opened)
}

fn create_tenant(database: &DatabaseShared, name: &TenantName) -> Result<(), Error> {
    let options = &database.options;
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
        (frame, placement),
    )?;
    Ok(())
}

struct Opened {
    engine: Option<Engine>,
    reader: LogReader,
    report: OpenReport,
    catalog: Catalog,
    keyring_to_confirm: Option<kimberlite_crypto::Keyring>,
}

fn write(database: &Arc<DatabaseShared>, name: &TenantName) -> Result<Opened, Error> {
    let mut state = State::new();
    let mut catalog = Catalog::default();
    let mut visit = |frame: &FrameView| {
        let frame = replayed(frame).map_err(boxed)?;
        replay(&mut state, &frame).map_err(|error| boxed(Problem::Replay(error).into()))?;
        catalog.apply(&frame).map_err(boxed)
    };
    let options = &database.options;
    let dir = database.tenant_dir(name);
    let (log, report) = open_writer(
        &options.disk,
        &dir,
        database.log_options.clone(),
        &mut visit,
    )?;
    let reader = log.reader();
    let keyring = database
        .keys
        .read_keyring(name)?
        .filter(|keyring| keyring.generation == 0 && keyring.log_id == reader.log_id());
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
        keyring_to_confirm: keyring,
    })
}

/// Reads as much as there is: behind a damaged administrative record the catalog knows no more.
fn observe(database: &Arc<DatabaseShared>, name: &TenantName) -> Result<Opened, Error> {
    let mut catalog = Catalog::default();
    let mut complete = true;
    let mut visit = |frame: &FrameView| {
        complete = complete
            && replayed(frame)
                .and_then(|frame| catalog.apply(&frame))
                .is_ok();
        Ok(())
    };
    let options = &database.options;
    let dir = database.tenant_dir(name);
    let (reader, report) = open_observer(&options.disk, &dir, &database.log_options, &mut visit)?;
    Ok(Opened {
        engine: None,
        reader,
        report,
        catalog,
        keyring_to_confirm: None,
    })
}

fn finish(
    database: &Arc<DatabaseShared>,
    name: &TenantName,
    opened: Opened,
) -> Result<Tenant, Error> {
    let options = &database.options;
    let log_id = opened.reader.log_id();
    let keys = database.keys.open_tenant(name, log_id)?;
    let genesis = read_genesis(&opened.reader, log_id)?;
    if genesis.public_key != keys.signer.public_key() {
        return Err(Problem::WrongSigner {
            name: name.as_str().to_owned(),
        }
        .into());
    }
    let (_, _, data_key) = keys.newest();
    let sealer = Sealer {
        log_id,
        encryption: options.encryption,
        name_key: data_key.name_key(&log_id),
        salt_key: random(options.entropy.as_ref())?,
        salts: AtomicU64::new(0),
    };
    let store = CheckpointStore::new(Arc::clone(&options.disk), &database.tenant_dir(name));
    let inner = TenantInner {
        name: name.clone(),
        origin: format!("{}/{}/1", genesis.label, log_id.short_hex()),
        reader: opened.reader,
        report: opened.report,
        catalog: RwLock::new(opened.catalog),
        sealer,
        keys,
        store,
        caches: Mutex::default(),
        engine: opened.engine.map(|engine| Mutex::new(Some(engine))),
        watched: AtomicBool::new(false),
        database: Arc::clone(database),
    };
    let tenant = Tenant::new(inner);
    record_recovery(&tenant)?;
    Ok(tenant)
}

fn read_genesis(reader: &LogReader, log_id: LogId) -> Result<Genesis, Error> {
    let unreadable = || Problem::AdministrativeRecord {
        kind: "genesis",
        position: Position::ZERO,
    };
    let record = reader.record(Position::ZERO)?.ok_or_else(unreadable)?;
    if kimberlite_crypto::log_id(record.payload()) != log_id {
        return Err(unreadable().into());
    }
    Ok(Genesis::decode(record.payload()).ok_or_else(unreadable)?)
}

/// Puts into the log that an unfinished write was cut off its end.
fn record_recovery(tenant: &Tenant) -> Result<(), Error> {
    let inner = tenant.inner();
    let Some(cut) = &inner.report.tail_discarded else {
        return Ok(());
    };
    let Some(engine) = &inner.engine else {
        return Ok(());
    };
    let mut engine = unlock(engine);
    let engine = engine.as_mut().ok_or(Problem::Closed)?;
    let payload = encode_recovery(cut.byte, cut.bytes);
    let time: Timestamp = engine.now();
    engine
        .log
        .reserve(kimberlite_storage::FRAME_HEADER_BYTES as u64 * 2)?;
    let mut group = Group::default();
    engine.record(
        &mut group,
        RecordKind::Recovery,
        Command::Recovery { time },
        &payload,
    )?;
    inner.commit(engine, group)?;
    engine.log.sync()?;
    Ok(())
}

fn boxed(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error)
}
