//! Many threads that append to one tenant: who syncs, who shares, and what an answer waits for.
//!
//! Syncs are held at a gate, so that what happens beside a sync is not left to chance.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use kimberlite::{Database, Error, ErrorKind, ExpectedVersion, Offset, Receipt, Stream};
use kimberlite_testkit::{CrashMode, Rng, SimulatedDisk};

use crate::gate::{Gate, frames, wait_for_writes};
use crate::support::{builder, contents, event};

/// A database with a tenant and a stream that exist, and a gate.
fn gated(seed: u64) -> (SimulatedDisk, Database, Stream, Arc<Gate>) {
    let disk = SimulatedDisk::new(seed);
    let gate = Gate::of(&disk);
    let db = builder(&disk, seed).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    stream.append(ExpectedVersion::Any, &[event("0")]).unwrap();
    (disk, db, stream, gate)
}

fn append(stream: &Stream, text: &str) -> Result<Receipt, Error> {
    stream.append(ExpectedVersion::Any, &[event(text)])
}

#[test]
fn appends_that_come_during_a_sync_are_written_beside_it_and_share_the_next() {
    let (disk, db, stream, gate) = gated(1);
    let before = (frames(&disk), gate.passed());
    std::thread::scope(|scope| {
        let closed = gate.close();
        let first = scope.spawn(|| append(&stream, "first"));
        gate.wait_for_held();
        let others = (0..8).map(|n| {
            let stream = stream.clone();
            scope.spawn(move || append(&stream, &n.to_string()))
        });
        let others = others.collect::<Vec<ScopedJoinHandle<'_, _>>>();
        // The first one's sync is still held: all the others are written beside it.
        wait_for_writes(&disk, before.0 + 9);
        assert_eq!(gate.passed(), before.1);
        assert_eq!(
            stream.len().unwrap(),
            1,
            "nothing is shown before it is durable"
        );
        gate.let_one_pass();
        assert_eq!(first.join().unwrap().unwrap().first_offset().get(), 1);
        gate.wait_for_held();
        assert_eq!(stream.len().unwrap(), 2, "the others are not durable yet");
        // Two syncs for nine appends.
        gate.let_one_pass();
        let _open = closed;
        for other in others {
            other.join().unwrap().unwrap();
        }
        assert_eq!(gate.passed(), before.1 + 2);
    });
    assert_eq!(stream.len().unwrap(), 10);
    assert_eq!(contents(&db, "t").len(), 10);
}

#[test]
fn a_refusal_waits_until_what_it_was_decided_on_is_durable() {
    for fails in [false, true] {
        let (disk, _db, stream, gate) = gated(2);
        let before = frames(&disk);
        std::thread::scope(|scope| {
            let closed = gate.close();
            let first = scope.spawn(|| append(&stream, "first"));
            gate.wait_for_held();
            // Decided on the first append, of which nobody knows yet whether it stays.
            let expected = ExpectedVersion::Exact(Offset::new(0));
            let refused = scope.spawn({
                let stream = stream.clone();
                move || stream.append(expected, &[event("second")])
            });
            // An append that is written meanwhile shows that the refusal had its turn.
            let third = scope.spawn(|| append(&stream, "third"));
            wait_for_writes(&disk, before + 2);
            assert!(!refused.is_finished(), "it was told what may not last");
            if fails {
                disk.fail_sync_at(disk.ops());
            }
            drop(closed);
            let kinds = [first, refused, third].map(|thread| {
                let answer = thread.join().unwrap();
                answer.err().map(|error| error.kind())
            });
            let unknown = Some(ErrorKind::OutcomeUnknown);
            if fails {
                assert_eq!(kinds, [unknown, unknown, unknown]);
            } else {
                assert_eq!(kinds, [None, Some(ErrorKind::WrongVersion), None]);
            }
        });
    }
}

#[test]
fn one_failed_sync_is_told_to_all_who_share_it_and_to_those_behind_it() {
    let (disk, db, stream, gate) = gated(3);
    std::thread::scope(|scope| {
        let closed = gate.close();
        let threads = (0..6).map(|n| {
            let stream = stream.clone();
            scope.spawn(move || append(&stream, &n.to_string()))
        });
        let threads = threads.collect::<Vec<_>>();
        gate.wait_for_held();
        disk.fail_sync_at(disk.ops());
        drop(closed);
        for thread in threads {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        }
    });
    assert_eq!(
        append(&stream, "later").unwrap_err().kind(),
        ErrorKind::OutcomeUnknown
    );
    assert_eq!(
        contents(&db, "t"),
        ["0"],
        "reads go on, up to what is durable"
    );
}

#[test]
fn a_leader_that_panics_leaves_an_unknown_outcome_and_nobody_waiting() {
    let disk = SimulatedDisk::new(4);
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = Arc::new(Gate::default());
    let (trigger, at) = (Arc::clone(&armed), Arc::clone(&gate));
    disk.set_sync_observer(Arc::new(move |_| {
        if trigger.load(std::sync::atomic::Ordering::SeqCst) {
            at.pass();
            panic!("in the middle of a sync");
        }
    }));
    let db = builder(&disk, 4).open().unwrap();
    let stream = db.tenant("t").unwrap().stream("s").unwrap();
    append(&stream, "0").unwrap();
    let before = frames(&disk);
    armed.store(true, std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        let closed = gate.close();
        let leader = scope.spawn(|| append(&stream, "1"));
        gate.wait_for_held();
        let follower = scope.spawn(|| append(&stream, "2"));
        wait_for_writes(&disk, before + 2);
        drop(closed);
        assert!(leader.join().is_err());
        let error = follower.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    });
}

/// Threads append until the disk dies; what each was told is there after the crash, in its order.
#[test]
fn whatever_many_threads_were_told_survives_a_crash() {
    let mut acknowledged_all = 0;
    for seed in 0..150_u64 {
        let mut rng = Rng::new(seed);
        let disk = SimulatedDisk::new(seed);
        let db = builder(&disk, seed).open().unwrap();
        let tenant = db.tenant("t").unwrap();
        disk.crash_after(disk.ops() + 1 + rng.below(80));
        let acknowledged = std::thread::scope(|scope| {
            let threads = (0..4).map(|thread| {
                let stream = tenant.stream(&format!("s{thread}")).unwrap();
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for n in 0..12 {
                        let text = format!("{thread}-{n}-{}", "x".repeat(n * 90));
                        match append(&stream, &text) {
                            Ok(receipt) => acknowledged.push((receipt.first_position(), text)),
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            });
            let threads = threads.collect::<Vec<_>>();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        drop((tenant, db));
        let mode = match seed % 3 {
            0 => CrashMode::LoseUnsynced,
            1 => CrashMode::KeepUnsynced,
            _ => CrashMode::Mixed(seed),
        };
        let found = disk.crash(mode);
        let db = builder(&found, seed + 1).open().unwrap();
        let tenant = db
            .tenant("t")
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (position, text) in &acknowledged {
            let record = tenant.read_position(*position).unwrap();
            let data = record.map(|record| record.data().clone());
            assert_eq!(data.as_deref(), Some(text.as_bytes()), "seed {seed}");
        }
        for thread in 0..4 {
            let stream = tenant.stream(&format!("s{thread}")).unwrap();
            for (n, record) in stream.read(..).enumerate() {
                let data = record.unwrap().data().clone();
                let begins = format!("{thread}-{n}-");
                assert!(data.starts_with(begins.as_bytes()), "seed {seed}");
            }
        }
        let report = tenant.verify().unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.findings);
        acknowledged_all += acknowledged.len();
    }
    assert!(acknowledged_all > 2000, "only {acknowledged_all} appends");
}

#[test]
fn what_an_append_has_returned_its_thread_can_read_at_once() {
    let disk = SimulatedDisk::new(6);
    let db = builder(&disk, 6).open().unwrap();
    let tenant = db.tenant("t").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let tenant = &tenant;
            scope.spawn(move || {
                let stream = tenant.stream(&format!("s{}", thread % 3)).unwrap();
                for n in 0..50 {
                    let text = format!("{thread}-{n}");
                    let receipt = append(&stream, &text).unwrap();
                    let offset = receipt.first_offset().get();
                    let record = stream.read(offset..=offset).next().unwrap().unwrap();
                    assert_eq!(record.data(), text.as_str());
                    assert_eq!(record.position(), receipt.first_position());
                }
            });
        }
    });
    assert_eq!(contents(&db, "t").len(), 300);
}
