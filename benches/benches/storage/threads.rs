//! Many threads that append to one tenant, each waiting until its append is durable.
//!
//! Beside them a bare queue: whoever finds nobody syncing writes all that was brought so far into a
//! zeroed file with one `pwrite`, syncs it, and wakes the others. No hash, no cipher, no order of
//! streams, no reader.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Condvar, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use hdrhistogram::Histogram;
use kimberlite::{AppendFuture, Encryption, Event, ExpectedVersion, SyncPolicy, WriteMode};

use crate::latencies::{histogram, is_smoke_run, is_wanted, quantiles};
use crate::{FLOOR_FILE_BYTES, database_by, floor_file};

const EVENT_BYTES: usize = 256;
/// What one such event takes in the log, encrypted and committed to.
const FRAME_BYTES: usize = 440;
const ROUNDS: usize = 5;
/// Appends of a round, by all threads together.
const APPENDS: u64 = 20_000;

pub(crate) fn compare() {
    for (threads, batch) in [(1, 1), (16, 1), (64, 1), (16, 100)] {
        let group = format!("threads/{threads} append {batch} of 256 B");
        if !is_wanted(&group) {
            continue;
        }
        let appends = if batch > 1 { APPENDS / 10 } else { APPENDS };
        let each = if is_smoke_run() {
            1
        } else {
            appends / threads as u64
        };
        let rounds = if is_smoke_run() { 1 } else { ROUNDS };
        let mut ours = Measured::default();
        let mut bare = Measured::default();
        for _ in 0..rounds {
            measure_database(&mut ours, WriteMode::default(), threads, each, batch);
            measure_queue(&mut bare, threads, each, batch);
        }
        ours.print(&format!("{group}/durable encrypted"));
        bare.print(&format!("{group}/floor: bare queue"));
    }
    compare_in_flight();
}

/// Appends that one thread keeps under way, beside as many threads that block.
fn compare_in_flight() {
    const IN_FLIGHT: usize = 64;
    let group = "in_flight/64 append 1 of 256 B";
    if !is_wanted(group) {
        return;
    }
    let (rounds, appends) = if is_smoke_run() {
        (1, IN_FLIGHT as u64)
    } else {
        (ROUNDS, APPENDS)
    };
    let mut futures = Measured::default();
    let mut blocking = Measured::default();
    for _ in 0..rounds {
        measure_in_flight(&mut futures, IN_FLIGHT, appends);
        let each = appends / IN_FLIGHT as u64;
        measure_database(&mut blocking, WriteMode::default(), IN_FLIGHT, each, 1);
    }
    futures.print(&format!("{group}/futures of one thread"));
    blocking.print(&format!("{group}/64 threads that block"));
}

/// Sixteen threads by each way to the disk, in turn.
pub(crate) fn compare_backends(modes: &[(&str, WriteMode)]) {
    for (batch, appends) in [(1, APPENDS / 2), (100, APPENDS / 20)] {
        let group = format!("backends/16 threads append {batch} of 256 B");
        if !is_wanted(&group) {
            continue;
        }
        let (rounds, each) = if is_smoke_run() {
            (1, 1)
        } else {
            (ROUNDS, appends / 16)
        };
        let mut measured = modes
            .iter()
            .map(|_| Measured::default())
            .collect::<Vec<_>>();
        for _ in 0..rounds {
            for ((_, mode), measured) in modes.iter().zip(&mut measured) {
                measure_database(measured, *mode, 16, each, batch);
            }
        }
        for ((name, _), measured) in modes.iter().zip(measured) {
            measured.print(&format!("{group}/{name}"));
        }
    }
}

#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    latencies: Option<Histogram<u64>>,
}

impl Measured {
    fn add(&mut self, elements: u64, seconds: f64, latencies: Histogram<u64>) {
        self.rates
            .push(f64::from(u32::try_from(elements).unwrap_or(u32::MAX)) / seconds);
        match &mut self.latencies {
            Some(all) => all.add(latencies).unwrap(),
            none => *none = Some(latencies),
        }
    }

    fn print(mut self, name: &str) {
        self.rates.sort_by(f64::total_cmp);
        let rate = |at: usize| self.rates[at];
        println!(
            "{name}: {:.0} events/s (rounds {:.0} to {:.0}), {}",
            rate(self.rates.len() / 2),
            rate(0),
            rate(self.rates.len() - 1),
            quantiles(self.latencies.as_ref().unwrap())
        );
    }
}

fn measure_database(
    measured: &mut Measured,
    mode: WriteMode,
    threads: usize,
    each: u64,
    batch: usize,
) {
    let (_dir, db) = database_by(mode, Encryption::On, SyncPolicy::EveryBatch);
    let tenant = db.tenant("t").unwrap();
    let events = vec![Event::new("measured", vec![7; EVENT_BYTES]); batch];
    let streams = (0..threads).map(|n| tenant.stream(&format!("s{n}")).unwrap());
    let streams = streams.collect::<Vec<_>>();
    for stream in &streams {
        stream.append(ExpectedVersion::Any, &events).unwrap();
    }
    run(measured, threads, each, batch, |thread| {
        streams[thread]
            .append(ExpectedVersion::Any, &events)
            .unwrap();
    });
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn measure_in_flight(measured: &mut Measured, in_flight: usize, appends: u64) {
    let (_dir, db) = database_by(WriteMode::default(), Encryption::On, SyncPolicy::EveryBatch);
    let tenant = db.tenant("t").unwrap();
    let event = [Event::new("measured", vec![7; EVENT_BYTES])];
    let streams = (0..in_flight).map(|n| tenant.stream(&format!("s{n}")).unwrap());
    let streams = streams.collect::<Vec<_>>();
    for stream in &streams {
        stream.append(ExpectedVersion::Any, &event).unwrap();
    }
    let mut latencies = histogram();
    let mut under_way = VecDeque::with_capacity(in_flight);
    let mut answer = |(start, append): (Instant, AppendFuture)| {
        pollster::block_on(append).unwrap();
        let spent = u64::try_from(start.elapsed().as_nanos()).unwrap();
        latencies.saturating_record(spent);
    };
    let begun = Instant::now();
    for nth in 0..appends {
        if under_way.len() == in_flight {
            under_way.pop_front().into_iter().for_each(&mut answer);
        }
        let stream = &streams[usize::try_from(nth).unwrap() % in_flight];
        let start = Instant::now();
        let append = stream.append_async(ExpectedVersion::Any, &event);
        under_way.push_back((start, append));
    }
    under_way.into_iter().for_each(answer);
    let seconds = begun.elapsed().as_secs_f64();
    measured.add(appends, seconds, latencies);
}

fn measure_queue(measured: &mut Measured, threads: usize, each: u64, batch: usize) {
    let queue = Queue {
        file: floor_file(),
        state: Mutex::default(),
        ended: Condvar::new(),
    };
    let frame = vec![7; FRAME_BYTES + (batch - 1) * 320];
    run(measured, threads, each, batch, |_| queue.append(&frame));
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn run(
    measured: &mut Measured,
    threads: usize,
    each: u64,
    batch: usize,
    append: impl Fn(usize) + Sync,
) {
    let begun = Instant::now();
    let append = &append;
    let latencies = std::thread::scope(|scope| {
        let threads = (0..threads).map(|thread| {
            scope.spawn(move || {
                let mut latencies = histogram();
                for _ in 0..each {
                    let start = Instant::now();
                    append(thread);
                    let spent = u64::try_from(start.elapsed().as_nanos()).unwrap();
                    latencies.saturating_record(spent);
                }
                latencies
            })
        });
        let threads = threads.collect::<Vec<ScopedJoinHandle<'_, _>>>();
        let mut all = histogram();
        for thread in threads {
            all.add(thread.join().unwrap()).unwrap();
        }
        all
    });
    let seconds = begun.elapsed().as_secs_f64();
    measured.add(threads as u64 * each * batch as u64, seconds, latencies);
}

/// The bare queue.
struct Queue {
    file: File,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    brought: Vec<u8>,
    count: u64,
    durable: u64,
    syncing: bool,
    at: u64,
}

impl Queue {
    fn append(&self, frame: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.brought.extend_from_slice(frame);
        state.count += 1;
        let mine = state.count;
        while state.durable < mine {
            if state.syncing {
                state = self.ended.wait(state).unwrap();
                continue;
            }
            state.syncing = true;
            let (bytes, count) = (std::mem::take(&mut state.brought), state.count);
            let length = bytes.len() as u64;
            if state.at + length > FLOOR_FILE_BYTES {
                state.at = 0;
            }
            let at = state.at;
            state.at += length;
            drop(state);
            self.file.write_all_at(&bytes, at).unwrap();
            self.file.sync_data().unwrap();
            state = self.state.lock().unwrap();
            (state.durable, state.syncing) = (count, false);
            self.ended.notify_all();
        }
    }
}
