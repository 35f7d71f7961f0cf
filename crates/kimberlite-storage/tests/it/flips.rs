//! Every byte of a log that was durable is turned over once: a writer or a verification must find
//! it, name the place, and change nothing; an observer must stay upright.

use kimberlite_storage::{Damage, StorageError, open_writer};
use kimberlite_testkit::{Rng, SimulatedDisk};

use crate::rig::{
    FRAMES_AT, FramePlace, Rig, dir, dyn_disk, layout, observe, one, options, segment,
    segment_name, verify_all, witness,
};

/// Three segments, groups of one and several frames, empty payloads, a watermark in the middle of
/// a segment and one at the very end.
fn log() -> Rig {
    let mut rig = Rig::new(1);
    let mut rng = Rng::new(4);
    rig.append(&vec![vec![rng.bytes(90), vec![], rng.bytes(7)]]);
    rig.roll(256 << 10);
    rig.append(&vec![
        vec![rng.bytes(30)],
        vec![rng.bytes(3), rng.bytes(20)],
    ]);
    rig.writer.write_watermark().unwrap();
    rig.append(&one(&rng.bytes(600)));
    rig.roll(1 << 20);
    rig.append(&vec![vec![rng.bytes(13), rng.bytes(14)]]);
    rig.append(&one(&rng.bytes(20)));
    rig.writer.write_watermark().unwrap();
    rig
}

/// How a flipped byte is found: by a writer that opens the log, or by a verification. The writer's
/// visitor reads no payload, so that those of sealed segments are left to the verification.
pub(crate) fn found(disk: &SimulatedDisk) -> Vec<Damage> {
    let ops = disk.ops();
    let witness = witness(disk);
    match open_writer(
        &dyn_disk(disk),
        dir(),
        options(3),
        &witness,
        &mut |_| Ok(()),
    ) {
        Ok((writer, report)) => {
            assert_eq!(report.tail_discarded, None);
            verify_all(&writer.reader(), disk).damage
        }
        Err(StorageError::Corrupt(damage)) => {
            assert_eq!(disk.ops(), ops, "a refused log was changed");
            vec![damage]
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn check_frame(rig: &Rig, place: FramePlace, byte: u64) {
    let name = segment_name(place.segment);
    let damage = found(&rig.disk);
    let first = damage
        .first()
        .unwrap_or_else(|| panic!("byte {byte} of {name} unnoticed"));
    assert_eq!(first.segment, name, "{first}, byte {byte}");
    assert!(
        first.byte <= byte && byte < place.end,
        "{first}, byte {byte}"
    );
    assert!(first.byte >= place.at, "{first}, byte {byte}");
    let positions = place.position..=place.position + place.count.saturating_sub(1);
    assert!(
        positions.contains(&first.position.get()),
        "{first}, byte {byte}"
    );
    let (reader, _) = observe(&rig.disk, &rig.model);
    assert!(reader.end().get() >= place.segment);
}

#[test]
fn any_flipped_byte_of_any_frame_is_reported_with_its_place_and_nothing_is_cut() {
    let rig = log();
    let places = layout(&rig.disk);
    assert_eq!(places.len(), 9);
    assert_eq!(places.iter().filter(|place| place.count == 0).count(), 2);
    for place in places {
        for byte in place.at..place.end {
            let mask = 1 << (byte % 8);
            rig.disk.flip(segment(place.segment), byte, mask);
            check_frame(&rig, place, byte);
            rig.disk.flip(segment(place.segment), byte, mask);
        }
    }
    assert_eq!(found(&rig.disk), []);
}

#[test]
fn a_flipped_byte_of_a_payload_names_its_record() {
    let rig = log();
    for place in layout(&rig.disk) {
        let payloads = (place.position..place.position + place.count).map(|position| {
            (
                position,
                rig.model[usize::try_from(position).unwrap()].len(),
            )
        });
        let mut byte = place.at + 112 + 8 * place.count;
        for (position, bytes) in payloads {
            for _ in 0..bytes {
                rig.disk.flip(segment(place.segment), byte, 0x10);
                if byte % 5 == 0 {
                    assert_eq!(found(&rig.disk)[0].position.get(), position);
                }
                rig.disk.flip(segment(place.segment), byte, 0x10);
                byte += 1;
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_a_header_page_is_reported() {
    let rig = log();
    for base in [0, 4, 8] {
        for byte in (0..112).chain((112..FRAMES_AT).step_by(97)) {
            rig.disk.flip(segment(base), byte, 0x04);
            let damage = found(&rig.disk);
            assert_eq!(damage.len(), 1, "byte {byte} of segment {base}: {damage:?}");
            assert_eq!(damage[0].segment, segment_name(base));
            rig.disk.flip(segment(base), byte, 0x04);
        }
    }
}

#[test]
fn a_flipped_byte_of_free_space_is_reported() {
    let rig = log();
    let places = layout(&rig.disk);
    for base in [0, 4, 8] {
        let last = places.iter().rfind(|place| place.segment == base).unwrap();
        let bytes = u64::try_from(rig.disk.contents(segment(base)).len()).unwrap();
        for byte in [last.end, last.end + 1, last.end + 700, bytes / 2, bytes - 1] {
            let disk = rig.disk.snapshot();
            disk.flip(segment(base), byte, 0x04);
            if base == 8 {
                // In the last segment it looks like the rest of an unfinished write.
                let opened = Rig::open(&disk, 3).unwrap();
                let cut = opened.report.tail_discarded.clone().unwrap();
                assert_eq!((cut.byte, cut.bytes), (last.end, byte + 1 - last.end));
                assert_eq!(opened.model, rig.model);
                continue;
            }
            let damage = found(&disk);
            assert_eq!(damage.len(), 1, "byte {byte} of segment {base}: {damage:?}");
            assert_eq!(damage[0].segment, segment_name(base));
            assert!((last.end..=byte).contains(&damage[0].byte));
        }
    }
}

#[test]
fn a_header_page_that_rots_under_an_open_log_is_found_by_verifying() {
    let rig = log();
    assert_eq!(rig.verify().damage, []);
    rig.disk.flip(segment(8), 3000, 1);
    let damage = rig.verify().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((&damage[0].segment, damage[0].byte), (&segment_name(8), 0));
}

#[test]
fn damage_in_several_segments_is_told_in_order() {
    let mut rig = log();
    // A writer leaves what stands before a checkpoint to the verification.
    rig.checkpoint().unwrap();
    let places = layout(&rig.disk);
    for place in [places[3], places[1]] {
        let payload = place.at + 112 + 8 * place.count;
        rig.disk.flip(segment(place.segment), payload, 1);
    }
    let damage = found(&rig.disk);
    let told = damage
        .iter()
        .map(|one| (one.segment.clone(), one.position.get()));
    let expected = [(segment_name(0), 1), (segment_name(4), 5)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
