//! A projection into `SQLite` that catches up with a log, beside the floor: reading the same events, and reading them
//! with their JSON.
//!
//! `cargo bench --locked -p kimberlite-benches --bench sqlite [-- 200000]`: the number of events, a million where
//! none is said. They are 256 bytes of JSON each, appended 100 at a time, encrypted. The files are in the page cache.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that fails has nothing to measure, and its figures are what it is for"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kimberlite::{Database, Event, ExpectedVersion, Position, SyncPolicy, Tenant};
use kimberlite_projection_sqlite::{ColumnType, Mapping, Reader, Rule, SqliteProjection, Table};

const EVENTS: u64 = 1_000_000;
const BATCH: u64 = 100;
const EVENT_BYTES: usize = 256;
const KEYS: u64 = 10_000;

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let smoke = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let events = if smoke {
        2_000
    } else {
        wanted.unwrap_or(EVENTS)
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = Database::builder(dir.path().join("db")).sync_policy(SyncPolicy::OnFlush);
    let db = builder.open().unwrap();
    let tenant = db.tenant("t").unwrap();
    append(&tenant, events);

    let print = |name: &str, took: Duration| {
        let each = took.as_secs_f64() * 1e6 / f64::from(u32::try_from(events).unwrap());
        println!("sqlite/{events} events/{name}: {took:.2?}, {each:.2} µs each");
    };
    print("floor: read", timed(|| read(&tenant, |_| ())));
    let parse = |data: &[u8]| {
        black_box(serde_json::from_slice::<serde_json::Value>(data).unwrap());
    };
    print("floor: read, with JSON", timed(|| read(&tenant, parse)));
    for (name, mapping) in [
        ("insert", log()),
        ("upsert", rows()),
        ("upsert, indexed", indexed()),
    ] {
        let mapping = Mapping::new([mapping]).unwrap();
        let mut file_bytes = 0;
        let took = timed(|| {
            let name = name.replace(", ", "-");
            let projection = SqliteProjection::open(&tenant, &name, &mapping).unwrap();
            let last = Position::new(tenant.durable_position().get() - 1);
            projection.wait_for(last).unwrap();
            projection.flush().unwrap();
            file_bytes = std::fs::metadata(projection.path()).unwrap().len();
        });
        print(&format!("{name}, file of {file_bytes} bytes"), took);
    }
    let mapping = Mapping::new([rows()]).unwrap();
    let end = tenant.durable_position();
    print(
        "upsert, as of the end",
        timed(|| drop(Reader::as_of(&tenant, &mapping, end, &mut |_| ()).unwrap())),
    );
}

fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

fn append(tenant: &Tenant, events: u64) {
    let stream = tenant.stream("s").unwrap();
    for first in (0..events).step_by(usize::try_from(BATCH).unwrap()) {
        let batch = (first..first + BATCH).map(|nth| {
            let key = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
            let mut data = format!(
                "{{\"id\":\"patient/{key:05}\",\"ward\":{},\"at\":{nth},\"weight\":{}.5,\"note\":\"",
                key % 40,
                nth % 90
            );
            while data.len() < EVENT_BYTES - 2 {
                data.push('n');
            }
            data.push_str("\"}");
            Event::new("noted", data)
        });
        let batch = batch.collect::<Vec<_>>();
        stream.append(ExpectedVersion::Any, &batch).unwrap();
    }
    tenant.flush().unwrap();
}

fn read(tenant: &Tenant, look: impl Fn(&[u8])) {
    for record in tenant.read_all(..) {
        look(record.unwrap().data());
    }
}

fn fields(table: Table) -> Table {
    table
        .column("id", ColumnType::Text, "/id")
        .column("ward", ColumnType::Integer, "/ward")
        .column("at", ColumnType::Integer, "/at")
        .column("weight", ColumnType::Real, "/weight")
        .column("note", ColumnType::Text, "/note")
}

fn log() -> Table {
    let table = Table::new("log").column("position", ColumnType::Integer, "$position");
    fields(table).key(["position"]).on(Rule::insert(["noted"]))
}

fn rows() -> Table {
    fields(Table::new("rows"))
        .key(["id"])
        .on(Rule::upsert(["noted"]))
}

fn indexed() -> Table {
    rows().index(["ward", "at"])
}
