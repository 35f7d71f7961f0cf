//! What power loss does to the bytes of one file whose name is durable.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kimberlite_disk::{Access, Disk, DiskFile};
use kimberlite_testkit::{CrashMode, SECTOR_BYTES, SimulatedDisk};

const SEEDS: u64 = 2_000;

/// A disk with one durable file of this content.
pub(crate) fn disk_with(path: &str, content: &[u8]) -> (SimulatedDisk, Arc<dyn DiskFile>) {
    let disk = SimulatedDisk::new(1);
    let file = disk.create(Path::new(path), Access::Shared).unwrap();
    file.write_all_at(&[content], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

/// Everything that the file can hold after power loss, over many seeds.
fn outcomes(disk: &SimulatedDisk, path: &str) -> BTreeSet<Vec<u8>> {
    let mut seen: BTreeSet<Vec<u8>> = (0..SEEDS)
        .map(|seed| disk.twin().crash(CrashMode::Mixed(seed)).contents(path))
        .collect();
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced] {
        seen.insert(disk.twin().crash(mode).contents(path));
    }
    seen
}

/// The first letter of each sector.
fn letters(content: &[u8]) -> String {
    content
        .chunks(SECTOR_BYTES)
        .map(|sector| char::from(sector[0]))
        .collect()
}

#[test]
fn synced_bytes_are_never_lost() {
    let (disk, file) = disk_with("/f", b"durable");
    file.write_all_at(&[b"DUR"], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "/f"), BTreeSet::from([b"DURable".to_vec()]));
}

#[test]
fn unsynced_bytes_are_seen_and_can_be_lost_or_kept() {
    let (disk, file) = disk_with("/f", b"old");
    file.write_all_at(&[b"new"], 0).unwrap();
    assert_eq!(disk.contents("/f"), b"new");
    assert_eq!(disk.durable_contents("/f"), b"old");
    assert_eq!(
        outcomes(&disk, "/f"),
        BTreeSet::from([b"old".to_vec(), b"new".to_vec()])
    );
    assert_eq!(
        disk.twin().crash(CrashMode::LoseUnsynced).contents("/f"),
        b"old"
    );
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).contents("/f"),
        b"new"
    );
}

#[test]
fn a_write_tears_at_sectors_and_only_there() {
    let (disk, file) = disk_with("/f", &[b'.'; 6 * SECTOR_BYTES]);
    // From the middle of sector 0 to the middle of sector 4.
    let (start, end) = (100, 4 * SECTOR_BYTES + 77);
    file.write_all_at(&[&vec![b'#'; end - start]], 100).unwrap();
    let seen = outcomes(&disk, "/f");
    for content in &seen {
        for (index, sector) in content.chunks(SECTOR_BYTES).enumerate() {
            let first = index * SECTOR_BYTES;
            let written = start.saturating_sub(first).min(SECTOR_BYTES)
                ..end.saturating_sub(first).min(SECTOR_BYTES);
            let mut new = vec![b'.'; SECTOR_BYTES];
            new[written].fill(b'#');
            let old = [b'.'; SECTOR_BYTES];
            assert!(
                sector == old || sector == new,
                "sector {index} is torn within"
            );
        }
    }
    assert_eq!(seen.len(), 1 << 5, "each of the five sectors for itself");
}

#[test]
fn a_later_write_can_survive_an_earlier_one_that_is_lost() {
    let (disk, file) = disk_with("/f", &[b'.'; 2 * SECTOR_BYTES]);
    file.write_all_at(&[&[b'1'; SECTOR_BYTES]], 0).unwrap();
    file.write_all_at(&[&[b'2'; SECTOR_BYTES]], 512).unwrap();
    let seen: BTreeSet<String> = outcomes(&disk, "/f").iter().map(|c| letters(c)).collect();
    assert_eq!(
        seen,
        BTreeSet::from(["..", "1.", ".2", "12"].map(str::to_owned))
    );
}

#[test]
fn a_sector_never_shows_a_write_without_the_earlier_ones_to_it() {
    let (disk, file) = disk_with("/f", b"....");
    file.write_all_at(&[b"AA"], 0).unwrap();
    file.write_all_at(&[b"BB"], 1).unwrap();
    let expected = [&b"...."[..], b"AA..", b"ABB."].map(<[u8]>::to_vec);
    assert_eq!(outcomes(&disk, "/f"), BTreeSet::from(expected));
}

#[test]
fn overlapping_writes_tear_into_states_that_each_sector_was_in() {
    let (disk, file) = disk_with("/f", &[b'.'; 3 * SECTOR_BYTES]);
    file.write_all_at(&[&[b'A'; 2 * SECTOR_BYTES]], 0).unwrap();
    file.write_all_at(&[&[b'B'; 2 * SECTOR_BYTES]], 512)
        .unwrap();
    let seen: BTreeSet<String> = outcomes(&disk, "/f").iter().map(|c| letters(c)).collect();
    let mut expected = BTreeSet::new();
    for first in [".", "A"] {
        for second in [".", "A", "B"] {
            for third in [".", "B"] {
                expected.insert(format!("{first}{second}{third}"));
            }
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_growing_write_can_leave_zeros_or_nothing() {
    let (disk, file) = disk_with("/f", b"");
    file.write_all_at(&[&[b'#'; 2 * SECTOR_BYTES]], 0).unwrap();
    let seen = outcomes(&disk, "/f");
    let of = |letters: &[u8]| -> Vec<u8> {
        letters
            .iter()
            .flat_map(|&letter| [letter; SECTOR_BYTES])
            .collect()
    };
    let expected = [of(b""), of(b"##"), of(b"\0#"), of(b"#\0"), of(b"\0\0")];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_cut_that_was_not_synced_can_be_undone() {
    let (disk, file) = disk_with("/f", b"0123456789");
    file.set_bytes(4).unwrap();
    let expected = [&b"0123456789"[..], b"0123"].map(<[u8]>::to_vec);
    assert_eq!(outcomes(&disk, "/f"), BTreeSet::from(expected));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, "/f"), BTreeSet::from([b"0123".to_vec()]));
}

#[test]
fn bytes_behind_a_durable_cut_never_come_back() {
    let (disk, file) = disk_with("/f", &[b'.'; 2 * SECTOR_BYTES]);
    file.set_bytes(0).unwrap();
    file.write_all_at(&[&[b'#'; SECTOR_BYTES]], 1024).unwrap();
    let seen: BTreeSet<String> = outcomes(&disk, "/f")
        .iter()
        .map(|c| letters(c).replace('\0', "0"))
        .collect();
    assert_eq!(
        seen,
        BTreeSet::from(["..", "", "00#", "000"].map(str::to_owned))
    );
}

#[test]
fn a_long_write_is_wholly_lost_wholly_kept_or_torn_whatever_becomes_of_the_next() {
    const COUNT: usize = 30;
    let (disk, file) = disk_with("/f", &vec![b'.'; 2 * COUNT * SECTOR_BYTES]);
    for index in 0..2 {
        let offset = index * COUNT * SECTOR_BYTES;
        file.write_all_at(
            &[&vec![b'#'; COUNT * SECTOR_BYTES]],
            u64::try_from(offset).unwrap(),
        )
        .unwrap();
    }
    let fate = |letters: &str| match letters.matches('#').count() {
        0 => "lost",
        COUNT => "kept",
        _ => "torn",
    };
    let seen: BTreeSet<_> = outcomes(&disk, "/f")
        .iter()
        .map(|content| letters(content))
        .map(|letters| (fate(&letters[..COUNT]), fate(&letters[COUNT..])))
        .collect();
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let run = || {
        let (disk, file) = disk_with("/f", &[b'.'; 30 * SECTOR_BYTES]);
        file.write_all_at(&[&[b'#'; 30 * SECTOR_BYTES]], 0).unwrap();
        disk.twin().crash(CrashMode::Mixed(7)).contents("/f")
    };
    assert_eq!(run(), run());
}

#[test]
fn bits_flip_on_the_medium_and_in_the_cache() {
    let (disk, file) = disk_with("/f", b"0000");
    file.write_all_at(&[b"1"], 3).unwrap();
    disk.flip("/f", 0, 0x80);
    disk.flip("/f", 3, 0x01);
    assert_eq!(disk.contents("/f"), b"\xb0000");
    assert_eq!(
        disk.twin().crash(CrashMode::LoseUnsynced).contents("/f"),
        b"\xb0001"
    );
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).contents("/f"),
        b"\xb0000"
    );
    disk.overwrite("/f", 1, b"xy");
    assert_eq!(
        disk.twin().crash(CrashMode::KeepUnsynced).contents("/f"),
        b"\xb0xy0"
    );
}
