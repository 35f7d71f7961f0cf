//! What was appended is read back, from wherever it stands.

use kimberlite_storage::{Durability, SegmentState, StorageError, Visibility};
use kimberlite_testkit::Rng;
use kimberlite_types::{Position, limits};

use crate::rig::{self, Group, Rig, observe, one};

/// Groups of one to four frames of one to six records.
fn groups(rng: &mut Rng, count: usize, payload_bytes_max: usize) -> Vec<Group> {
    let payloads = |rng: &mut Rng| {
        let records = 1 + rng.index(6);
        (0..records)
            .map(|_| {
                let bytes = rng.index(payload_bytes_max);
                rng.bytes(bytes)
            })
            .collect::<Vec<_>>()
    };
    (0..count)
        .map(|_| (0..=rng.index(4)).map(|_| payloads(rng)).collect())
        .collect()
}

fn durability(rng: &mut Rng) -> Durability {
    let all = [Durability::Later, Durability::Group, Durability::EachFrame];
    *rng.choose(&all).unwrap()
}

#[test]
fn records_are_read_back_from_the_tail_the_file_and_mapped_segments() {
    for (seed, tail_bytes_max) in [(1, 4 << 20), (2, 0), (3, 5000)] {
        let mut rng = Rng::new(seed);
        let disk = kimberlite_testkit::SimulatedDisk::new(seed);
        rig::create(&disk, seed).unwrap();
        let mut options = rig::options(seed);
        options.tail_bytes_max = tail_bytes_max;
        let mut rig = Rig::open_with(&disk, options).unwrap();
        for group in groups(&mut rng, 120, 4000) {
            let durability = durability(&mut rng);
            rig.commit(&group, durability).unwrap();
            assert!(rig.writer.reader().end() <= rig.writer.durable());
        }
        rig.writer.sync().unwrap();
        let segments = rig.writer.reader().segments(&disk).unwrap();
        assert!(segments.len() >= 3, "{segments:?}");
        rig.check();
        let rig = rig.reopen();
        rig.check();
        assert_eq!(rig.writer.reader().segments(&disk).unwrap(), segments);
        rig.reopen().check();
    }
}

#[test]
fn reopening_after_every_group_gives_the_history_of_one_life() {
    let mut rng = Rng::new(11);
    let groups = groups(&mut rng, 60, 9000);
    let mut whole = Rig::new(4);
    for group in &groups {
        whole.append(group);
    }
    let mut lives = Rig::new(5);
    for (index, group) in groups.iter().enumerate() {
        lives.append(group);
        if index % 3 == 0 {
            lives.writer.write_watermark().unwrap();
        }
        if index % 7 == 0 {
            lives.checkpoint().unwrap();
        }
        lives = lives.reopen();
    }
    assert_eq!(whole.writer.history(), lives.writer.history());
    lives.check();
    let states = lives.writer.reader().segments(&lives.disk).unwrap();
    let (active, closed) = states.split_last().unwrap();
    assert_eq!(active.state, SegmentState::Active);
    assert!(closed.len() >= 2);
    assert!(closed.iter().all(|one| one.state == SegmentState::Sealed));
}

#[test]
fn records_are_seen_when_they_are_durable_or_written_as_asked() {
    let mut rig = Rig::new(1);
    rig.commit(&one(b"later"), Durability::Later).unwrap();
    let reader = rig.writer.reader();
    assert_eq!((reader.end().get(), reader.durable().get()), (1, 1));
    assert!(reader.record(Position::new(1)).unwrap().is_none());
    rig.writer.sync().unwrap();
    assert_eq!((reader.end().get(), reader.durable().get()), (2, 2));

    let disk = rig.disk.clone();
    drop(rig);
    let mut options = rig::options(2);
    options.visibility = Visibility::Written;
    let mut rig = Rig::open_with(&disk, options).unwrap();
    rig.commit(&one(b"later"), Durability::Later).unwrap();
    let reader = rig.writer.reader();
    assert_eq!((reader.end().get(), reader.durable().get()), (3, 2));
    assert!(reader.record(Position::new(2)).unwrap().is_some());
}

#[test]
fn a_group_larger_than_a_segment_gets_one_of_its_own() {
    let mut rig = Rig::new(1);
    let mut rng = Rng::new(1);
    rig.append(&one(b"small"));
    rig.append(&vec![
        vec![rng.bytes(3 << 20)],
        vec![rng.bytes(2 << 20), vec![]],
    ]);
    rig.append(&one(&rng.bytes(8 << 10)));
    let segments = rig.writer.reader().segments(&rig.disk).unwrap();
    let bases = segments
        .iter()
        .map(|one| one.base.get())
        .collect::<Vec<_>>();
    assert_eq!(bases, [0, 2, 5]);
    rig.check();
    rig.reopen().check();
}

#[test]
fn an_empty_segment_that_is_too_small_is_replaced_by_a_larger_one() {
    let mut rig = Rig::new(1);
    rig.append(&one(b"small"));
    rig.roll(256 << 10);
    let reopened = Rig::open(&rig.disk.snapshot(), 3).unwrap();
    for mut rig in [rig, reopened] {
        rig.append(&one(&Rng::new(2).bytes(2 << 20)));
        rig.append(&one(b"after"));
        rig.check();
        let segments = rig.writer.reader().segments(&rig.disk).unwrap();
        let bases = segments
            .iter()
            .map(|one| one.base.get())
            .collect::<Vec<_>>();
        assert_eq!(bases, [0, 2]);
        rig.reopen().check();
    }
}

#[test]
fn a_group_or_frame_over_its_limit_is_refused_and_the_log_goes_on() {
    let mut rig = Rig::new(1);
    let large = vec![0; limits::PAYLOAD_BYTES_MAX];
    let frame_over = vec![vec![large.clone(), large.clone()]];
    let group_over = vec![vec![large]; 8];
    for group in [frame_over, group_over] {
        let position = rig.end();
        let refused = rig
            .writer
            .commit(rig::frames(position, &group), Durability::Group);
        let is_too_large = matches!(
            refused,
            Err(StorageError::GroupTooLarge { bytes, bytes_max }) if bytes > bytes_max
        );
        assert!(is_too_large);
        rig.append(&one(b"still works"));
    }
    rig.check();
    rig.reopen().check();
}

#[test]
fn an_observer_beside_the_writer_reads_every_segment_and_sees_that_the_log_grew() {
    let mut rig = Rig::new(1);
    let mut observers = Vec::new();
    for round in 0..6 {
        let (reader, report) = observe(&rig.disk, &rig.model);
        assert_eq!((reader.end().get(), report.damage), (rig.end(), vec![]));
        assert!(!reader.has_grown(&rig.disk).unwrap());
        observers.push(reader);
        rig.append(&one(&Rng::new(round).bytes(100 << 10)));
        for reader in &observers {
            assert!(reader.has_grown(&rig.disk).unwrap());
        }
    }
}

#[test]
fn an_observer_reads_closed_segments_that_have_no_seal() {
    let mut rig = Rig::new(1);
    for round in 0..20 {
        rig.append(&one(&Rng::new(round).bytes(100 << 10)));
    }
    let disk = rig.disk.snapshot();
    for path in disk.files() {
        if path.extension().is_some_and(|ending| ending == "seal") {
            kimberlite_disk::Disk::remove(&disk, &path).unwrap();
        }
    }
    let (reader, report) = observe(&disk, &rig.model);
    assert_eq!((reader.end().get(), report.damage), (rig.end(), vec![]));
    assert_eq!(rig::verify_all(&reader, &disk).damage, []);
}

#[test]
fn every_frame_that_is_synced_by_itself_costs_one_sync() {
    let mut rig = Rig::new(1);
    let group = vec![
        vec![b"a".to_vec()],
        vec![b"b".to_vec()],
        vec![b"c".to_vec()],
    ];
    for (durability, syncs) in [
        (Durability::Later, 0),
        (Durability::Group, 1),
        (Durability::EachFrame, 3),
    ] {
        let before = rig.disk.syncs();
        rig.commit(&group, durability).unwrap();
        assert_eq!(rig.disk.syncs() - before, syncs, "{durability:?}");
    }
}
