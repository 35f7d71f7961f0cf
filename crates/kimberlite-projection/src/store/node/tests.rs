//! Nodes against the entries that they were made of, and against bytes that nobody made.

use kimberlite_testkit::Rng;

use super::super::page::{Checksum, PageId};
use super::build::{Cell, Fill, Part, cut, separator, write};
use super::*;

fn inline<'a>(key: &'a [u8], value: &'a [u8]) -> Part<'a> {
    Part {
        key,
        value: Cell::Inline(value),
    }
}

/// Writes a leaf of entries and reads each of them back.
fn check_leaf(entries: &[(Vec<u8>, Vec<u8>)]) -> (Box<Page>, Layout) {
    let parts: Vec<_> = entries
        .iter()
        .map(|(key, value)| inline(key, value))
        .collect();
    let page = write(0, &parts);
    let layout = Layout::read(&page).unwrap();
    assert!(layout.check(&page), "{entries:?}");
    assert_eq!(
        (layout.count, layout.keys()),
        (entries.len(), entries.len())
    );
    for (index, (key, value)) in entries.iter().enumerate() {
        assert_eq!(whole_key(&layout, &page, index), *key);
        assert_eq!(layout.slot(&page, index), Some(Slot::Inline(value)));
        assert_eq!(layout.lower_bound(&page, key), (index, true));
        // What is a little above or below stands beside it.
        let above = [key.as_slice(), &[0]].concat();
        let next = entries
            .get(index + 1)
            .is_some_and(|(next, _)| *next == above);
        assert_eq!(layout.lower_bound(&page, &above), (index + 1, next));
        if let Some((_, below)) = key.split_last() {
            let expected = entries.partition_point(|(key, _)| key.as_slice() < below);
            assert_eq!(layout.lower_bound(&page, below).0, expected);
        }
    }
    (page, layout)
}

fn whole_key(layout: &Layout, page: &Page, index: usize) -> Vec<u8> {
    [layout.prefix(page), layout.suffix(page, index).unwrap()].concat()
}

fn keys(keys: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = |key: &&str| (key.as_bytes().to_vec(), b"v".to_vec());
    keys.iter().map(entry).collect()
}

#[test]
fn the_bytes_are_as_documented() {
    let run = RunRef {
        first: PageId::new(0x0403_0201),
        bytes: 0x0000_1000,
        checksum: Checksum::new([9; 8]),
    };
    let parts = [
        inline(b"abc", b"xy"),
        Part {
            key: b"abde",
            value: Cell::Reference(run.encode()),
        },
    ];
    let leaf = write(0, &parts);
    let mut expected = vec![1, 0, 2, 0, 2, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    expected.extend(b"ab");
    expected.extend([1, 0, 3, 0]);
    expected.extend([2, 0, 18, 0x80]);
    expected.extend(b"cde");
    expected.extend(b"xy");
    expected.extend([1, 2, 3, 4, 0, 0x10, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    let (beginning, rest) = leaf.split_at(expected.len());
    assert_eq!(beginning, expected);
    assert!(rest.iter().all(|byte| *byte == 0));
    let layout = Layout::read(&leaf).unwrap();
    assert_eq!(layout.slot(&leaf, 1), Some(Slot::Run(run)));
    assert_eq!(layout.bytes(&leaf), expected.len());

    let children = [3_u32, 4].map(|page| {
        let checksum = Checksum::new([u8::try_from(page).unwrap(); 8]);
        let page = PageId::new(page);
        PageRef { page, checksum }.encode()
    });
    let branch = write(
        1,
        &[inline(b"ignored", &children[0]), inline(b"m", &children[1])],
    );
    let mut expected = vec![2, 1, 2, 0, 1, 0, 0, 0, 12, 0, 0, 0, b'm'];
    expected.extend([3, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3]);
    expected.extend([4, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4]);
    let (beginning, rest) = branch.split_at(expected.len());
    assert_eq!(beginning, expected);
    assert!(rest.iter().all(|byte| *byte == 0));
    let layout = Layout::read(&branch).unwrap();
    assert!(layout.check(&branch));
    for (key, child) in [("", 0), ("l", 0), ("lz", 0), ("m", 1), ("m\0", 1), ("z", 1)] {
        assert_eq!(layout.child_index(&branch, key.as_bytes()), child, "{key}");
    }
}

#[test]
fn keys_are_cut_at_what_all_of_them_begin_with() {
    for (entries, prefix) in [
        (keys(&["stream/1", "stream/2", "stream/30"]), "stream/"),
        (keys(&["a", "ab", "abc"]), "a"),
        (keys(&["", "a"]), ""),
        (keys(&["only"]), "only"),
        (keys(&["x1", "y1"]), ""),
        (keys(&["same\u{0}", "same\u{0}\u{0}"]), "same\u{0}"),
    ] {
        let (page, layout) = check_leaf(&entries);
        assert_eq!(layout.prefix(&page), prefix.as_bytes());
    }
}

#[test]
fn a_key_that_does_not_begin_as_the_node_does_stands_before_or_behind_all_of_it() {
    let (page, layout) = check_leaf(&keys(&["stream/1", "stream/2"]));
    for (key, index) in [
        ("", 0),
        ("stream", 0),
        ("stream/", 0),
        ("streal/9", 0),
        ("stream/3", 2),
        ("stream0", 2),
        ("t", 2),
    ] {
        let expected = (index, false);
        assert_eq!(layout.lower_bound(&page, key.as_bytes()), expected, "{key}");
    }
}

#[test]
fn short_keys_of_one_length_are_found_like_all_others() {
    let mut rng = Rng::new(1);
    for bytes in 1..=9_usize {
        let mut all: Vec<Vec<u8>> = (0..150).map(|_| rng.bytes(bytes)).collect();
        all.sort();
        all.dedup();
        let entries: Vec<_> = all.iter().map(|key| (key.clone(), vec![7; 4])).collect();
        let (page, layout) = check_leaf(&entries);
        for _ in 0..200 {
            let key = rng.bytes(bytes);
            let expected = all.partition_point(|other| *other < key);
            assert_eq!(layout.lower_bound(&page, &key).0, expected);
        }
    }
}

#[test]
fn the_longest_key_and_value_fit_twice_into_a_leaf_and_a_branch() {
    let longest = |last| {
        let mut key = vec![b'k'; KEY_BYTES_MAX];
        key[0] = last;
        key
    };
    let value = vec![3; super::super::INLINE_BYTES_MAX];
    let entries = vec![(longest(0), value.clone()), (longest(1), value)];
    let (_, layout) = check_leaf(&entries);
    assert!(layout.is_leaf());

    let place = [0; PageRef::BYTES];
    let separators: Vec<_> = (0..4).map(longest).collect();
    let parts: Vec<_> = separators.iter().map(|key| inline(key, &place)).collect();
    for run in cut(1, &parts, Fill::Packed) {
        assert!(run.len() >= 2, "a branch of one child: {run:?}");
    }
}

#[test]
fn entries_are_cut_by_bytes_and_each_page_holds_what_it_is_given() {
    let mut rng = Rng::new(2);
    // Many small ones and then few large ones: half the entries are far from half the bytes.
    let entries: Vec<_> = (0..200_u64)
        .map(|n| {
            let bytes = if n < 180 { 4 } else { 300 };
            (format!("{n:08}").into_bytes(), rng.bytes(bytes))
        })
        .collect();
    let parts: Vec<_> = entries
        .iter()
        .map(|(key, value)| inline(key, value))
        .collect();
    for fill in [Fill::Packed, Fill::Even] {
        let runs = cut(0, &parts, fill);
        assert_eq!(runs.first().unwrap().start, 0);
        assert_eq!(runs.last().unwrap().end, parts.len());
        assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start));
        let bytes: Vec<usize> = runs
            .iter()
            .map(|run| {
                let (page, layout) = check_leaf(&entries[run.clone()]);
                layout.bytes(&page)
            })
            .collect();
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        match fill {
            Fill::Even => assert!(most - least < 2 * 320, "{bytes:?}"),
            Fill::Packed => assert!(bytes[0] > BODY_BYTES - 320, "{bytes:?}"),
            Fill::Before(_) => unreachable!(),
        }
        assert!(runs[0].len() > 2 * runs.last().unwrap().len(), "{runs:?}");
    }
    // Of the large ones, two to three pages, of which the last has room.
    let parts = &parts[170..];
    let pages = cut(0, parts, Fill::Packed).len();
    let even = cut(0, parts, Fill::Even);
    let mut begun = 0;
    for entry in 0..=parts.len() + 1 {
        let runs = cut(0, parts, Fill::Before(entry));
        assert_eq!(runs.len(), pages);
        assert_eq!(runs.first().unwrap().start, 0);
        assert_eq!(runs.last().unwrap().end, parts.len());
        assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start));
        let begins = runs.iter().any(|run| run.start == entry);
        let is_at_end = entry == parts.len();
        assert!(begins || is_at_end || runs == even, "{entry}: {runs:?}");
        begun += usize::from(begins && runs != even);
    }
    assert!(begun > 3, "{begun}");
}

#[test]
fn a_separator_is_short_and_parts_what_it_stands_between() {
    for (left, right, expected) in [
        ("abc", "abd", "abd"),
        ("abc", "b", "b"),
        ("apple", "banana", "b"),
        ("a", "a\0", "a\0"),
        ("stream/0999", "stream/1000", "stream/1"),
        ("", "x", "x"),
    ] {
        let found = separator(left.as_bytes(), right.as_bytes());
        assert_eq!(found, expected.as_bytes(), "{left}, {right}");
        assert!(left.as_bytes() < found && found <= right.as_bytes());
    }
}

/// Asks a node for everything that a store may ask for.
fn ask(page: &Page, rng: &mut Rng) -> bool {
    let Some(layout) = Layout::read(page) else {
        return false;
    };
    let is_sound = layout.check(page);
    for index in (0..layout.count.min(300)).chain([layout.count, usize::from(u16::MAX)]) {
        let _ = layout.suffix(page, index);
        let _ = layout.child(page, index);
        let _ = layout.value_at(page, index);
        if let Some(Slot::Inline(value)) = layout.slot(page, index) {
            assert!(value.len() <= PAGE_BYTES);
        }
    }
    for bytes in [0, 1, 7, 8, 9, 40] {
        let key = rng.bytes(bytes);
        assert!(layout.lower_bound(page, &key).0 <= layout.keys());
        assert!(layout.child_index(page, &key) <= layout.keys());
    }
    if is_sound {
        assert!(layout.bytes(page) <= BODY_BYTES);
        for index in 0..layout.count {
            assert!(index >= layout.keys() || layout.suffix(page, index).is_some());
        }
    }
    is_sound
}

#[test]
fn bytes_that_nobody_wrote_are_refused_or_read_without_a_panic() {
    let mut rng = Rng::new(3);
    let mut seeds = Vec::new();
    for bytes in [4, 8] {
        let mut all: Vec<Vec<u8>> = (0..90).map(|_| rng.bytes(bytes)).collect();
        all.sort();
        all.dedup();
        let value = |n: usize| vec![1; if bytes == 4 { n % 5 } else { 12 }];
        let entries: Vec<_> = all
            .into_iter()
            .enumerate()
            .map(|(n, key)| (key, value(n)))
            .collect();
        seeds.push(check_leaf(&entries).0);
        let parts: Vec<_> = entries
            .iter()
            .map(|(key, _)| inline(key, &[5; PageRef::BYTES]))
            .collect();
        seeds.push(write(3, &parts));
    }
    let (mut sound, mut refused) = (0, 0);
    for round in 0..40_000_usize {
        let mut page = seeds[round % seeds.len()].clone();
        for _ in 0..=rng.below(3) {
            // Mostly where the lengths and the ends are.
            let bound = if rng.chance(3, 4) {
                200
            } else {
                BODY_BYTES as u64
            };
            let at = usize::try_from(rng.below(bound)).unwrap();
            page[at] = match rng.below(3) {
                0 => 0xff,
                1 => page[at] ^ (1 << rng.below(8)),
                _ => rng.bytes(1)[0],
            };
        }
        if ask(&page, &mut rng) {
            sound += 1;
        } else {
            refused += 1;
        }
    }
    for _ in 0..2000 {
        let mut page: Page = [0; PAGE_BYTES];
        page.copy_from_slice(&rng.bytes(PAGE_BYTES));
        page[0] = 1 + page[0] % 2;
        page[1] = if page[0] == 1 { 0 } else { page[1] | 1 };
        page[3] = 0;
        page[5] = 0;
        ask(&page, &mut rng);
    }
    assert!(sound > 1000 && refused > 10_000, "{sound}, {refused}");
}

#[test]
fn what_a_leaf_may_not_hold_is_refused() {
    let place = RunRef {
        first: PageId::new(5),
        bytes: VALUE_BYTES_MAX_U32 + 1,
        checksum: Checksum::new([0; 8]),
    };
    let too_long = [Part {
        key: b"k",
        value: Cell::Reference(place.encode()),
    }];
    let key = vec![1; KEY_BYTES_MAX + 1];
    let unordered = [inline(b"b", b""), inline(b"a", b"")];
    let twice = [inline(b"a", b""), inline(b"a", b"")];
    for parts in [&too_long[..], &[inline(&key, b"")], &unordered, &twice] {
        let page = write(0, parts);
        assert!(!Layout::read(&page).is_some_and(|layout| layout.check(&page)));
    }
    let mut page = write(0, &[inline(b"a", b"")]);
    assert!(Layout::read(&page).unwrap().check(&page));
    page[10] = 1;
    assert!(!Layout::read(&page).is_some_and(|layout| layout.check(&page)));
}
