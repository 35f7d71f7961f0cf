//! Stores by somebody who can write checksums: everything agrees with its parent and yet cannot be.

use super::super::page::{BODY_BYTES, Checksum, PageRef};
use super::super::superblock::Superblock;

use super::*;

const STORE: &str = "/p/store";

/// The newest superblock of a store with a hundred entries and a long value, and its disk.
fn disk_with_store() -> (SimulatedDisk, Superblock) {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let mut store = Store::create(&disk, Path::new(STORE), identity(), COPIED).unwrap();
    let mut changes: Vec<_> = (100..200_u64)
        .map(|n| (n.to_string().into_bytes(), Some(vec![1; 100])))
        .collect();
    changes.push((b"long".to_vec(), Some(vec![2; 9000])));
    commit(&mut store, 1, &changes);
    store.flush().unwrap();
    let superblock = newest_superblock(&*store.file).unwrap();
    drop(store);
    (disk, superblock)
}

fn page_of(disk: &SimulatedDisk, page: PageId) -> Page {
    let contents = disk.contents(STORE);
    let at = usize::try_from(page.offset()).unwrap();
    *contents[at..].first_chunk().unwrap()
}

/// Puts a superblock into the place of both.
fn forge(disk: &SimulatedDisk, superblock: &Superblock) {
    for slot in 0..FIRST_PAGE {
        let offset = PageId::new(slot).offset();
        disk.overwrite(STORE, offset, &superblock.encode()[..]);
    }
}

/// Does to a store whatever can be done to it; the first error, if there is one.
fn use_store(disk: &SimulatedDisk) -> Result<(), StoreError> {
    let mut store = Store::open(disk, Path::new(STORE), identity(), COPIED)?;
    let verified = store.verify().map(drop);
    let mut outcome = Ok(());
    for position in 2..6_u64 {
        let mut transaction = store.write();
        for n in (100..220).step_by(usize::try_from(position).unwrap()) {
            transaction.remove(n.to_string().as_bytes())?;
            transaction.put(n.to_string().as_bytes(), &[3; 950])?;
        }
        transaction.remove(b"long")?;
        outcome = outcome.and(transaction.commit(at(position)));
        outcome = outcome.and(store.flush());
    }
    let snapshot = store.snapshot();
    let mut cursor = snapshot.cursor()?;
    while cursor.next_entry()?.is_some() {}
    verified.and(outcome)
}

fn check_told(disk: &SimulatedDisk, what: &str) {
    let told = use_store(disk);
    assert!(
        matches!(told, Err(StoreError::Damaged { .. })),
        "{what}: {told:?}"
    );
}

#[test]
fn a_forged_superblock_is_told_and_nothing_panics() {
    let (disk, superblock) = disk_with_store();
    use_store(&disk.twin()).unwrap();
    let (root, level) = superblock.root.unwrap();
    let with_root = |page, level| Superblock {
        root: Some((
            PageRef {
                page: PageId::new(page),
                ..root
            },
            level,
        )),
        ..superblock
    };
    let with_space = |first, bytes| Superblock {
        space: RunRef {
            first: PageId::new(first),
            bytes,
            ..superblock.space
        },
        ..superblock
    };
    let (first, bytes) = (superblock.space.first.get(), superblock.space.bytes);
    for (what, forged) in [
        (
            "fewer entries",
            Superblock {
                entries: 1,
                ..superblock
            },
        ),
        (
            "more entries",
            Superblock {
                entries: u64::MAX,
                ..superblock
            },
        ),
        (
            "more pages",
            Superblock {
                page_count: u32::MAX,
                ..superblock
            },
        ),
        (
            "fewer pages",
            Superblock {
                page_count: 3,
                ..superblock
            },
        ),
        ("another level", with_root(root.page.get(), level + 1)),
        ("the highest level", with_root(root.page.get(), u8::MAX)),
        ("a root at a superblock", with_root(1, level)),
        ("a root behind the end", with_root(u32::MAX, level)),
        (
            "a space that begins elsewhere",
            with_space(first + 1, bytes),
        ),
        ("a space behind the end", with_space(u32::MAX, bytes)),
        ("a longer space", with_space(first, u32::MAX)),
        ("no space", with_space(first, 0)),
    ] {
        let disk = disk.twin();
        forge(&disk, &forged);
        check_told(&disk, what);
    }
}

#[test]
fn pages_that_are_used_and_free_or_used_twice_are_told_and_nothing_panics() {
    let (disk, superblock) = disk_with_store();
    let mut page = page_of(&disk, superblock.space.first);
    let bytes = usize::try_from(superblock.space.bytes).unwrap();
    let (words, _) = page.split_at_mut(bytes);
    let (own, own_bit) = {
        let index = superblock.space.first.index();
        (index / 8, 1 << (index % 8))
    };
    for keeps_itself in [false, true] {
        // Nothing is taken, or nothing but the page that says so.
        words.fill(0);
        if keeps_itself {
            words[own] = own_bit;
        }
        let disk = disk.twin();
        disk.overwrite(STORE, superblock.space.first.offset(), words);
        let mut forged = superblock;
        forged.space.checksum = Checksum::of(words);
        forge(&disk, &forged);
        check_told(&disk.twin(), "pages are free");

        let opened = Store::open(&disk, Path::new(STORE), identity(), COPIED);
        assert_eq!(opened.is_ok(), keeps_itself, "{opened:?}");
        let Ok(mut store) = opened else { continue };
        let mut transaction = store.write();
        transaction.put(b"100", b"new").unwrap();
        transaction.commit(at(2)).unwrap();
        let told = store.flush();
        assert!(matches!(told, Err(StoreError::Damaged { .. })), "{told:?}");
        assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
    }
}

#[test]
fn pages_that_are_free_by_a_forged_map_are_not_written_while_they_are_read() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/p")).unwrap();
    let mut store = Store::create(&disk, Path::new(STORE), identity(), COPIED).unwrap();
    // More leaves than are written at once.
    let changes: Vec<_> = (10_000..14_000_u64)
        .map(|n| (n.to_string().into_bytes(), Some(vec![1; 400])))
        .collect();
    commit(&mut store, 1, &changes);
    store.flush().unwrap();
    let superblock = newest_superblock(&*store.file).unwrap();
    drop(store);
    let bytes = usize::try_from(superblock.space.bytes).unwrap();
    let mut words = page_of(&disk, superblock.space.first)[..bytes].to_vec();
    words.fill(0);
    for page in (0..FIRST_PAGE).chain(superblock.space.first.get()..superblock.page_count) {
        words[PageId::new(page).index() / 8] |= 1 << (page % 8);
    }
    disk.overwrite(STORE, superblock.space.first.offset(), &words);
    let mut forged = superblock;
    forged.space.checksum = Checksum::of(&words);
    forge(&disk, &forged);
    let mut store = Store::open(&disk, Path::new(STORE), identity(), COPIED).unwrap();
    let before = disk.contents(STORE);
    commit(&mut store, 2, &changes);
    let told = store.flush();
    assert!(matches!(told, Err(StoreError::Damaged { .. })), "{told:?}");
    assert_eq!(disk.contents(STORE), before);
}

#[test]
fn a_count_that_does_not_end_with_the_entries_is_told() {
    let (disk, superblock) = disk_with_store();
    for entries in [superblock.entries - 1, superblock.entries + 1] {
        let disk = disk.twin();
        let forged = Superblock {
            entries,
            ..superblock
        };
        forge(&disk, &forged);
        let mut store = Store::open(&disk, Path::new(STORE), identity(), COPIED).unwrap();
        let gone: Vec<_> = all(&store.snapshot()).into_keys().collect();
        let gone: Vec<_> = gone.into_iter().map(|key| (key, None)).collect();
        commit(&mut store, 2, &gone);
        let told = store.flush();
        assert!(matches!(told, Err(StoreError::Damaged { .. })), "{told:?}");
    }
}

/// A root in the place of the one that is there.
fn forge_root(disk: &SimulatedDisk, superblock: &Superblock, page: &Page, level: u8) {
    let (root, _) = superblock.root.unwrap();
    disk.overwrite(STORE, root.page.offset(), &page[..BODY_BYTES]);
    let checksum = Checksum::of_page(page);
    let root = Some((PageRef { checksum, ..root }, level));
    forge(
        disk,
        &Superblock {
            root,
            ..*superblock
        },
    );
}

#[test]
fn a_forged_root_is_told_and_nothing_panics() {
    use super::super::node::build::{Cell, Part, write};

    let (disk, superblock) = disk_with_store();
    let (root, level) = superblock.root.unwrap();
    assert_eq!(level, 1);
    let old = page_of(&disk, root.page);
    let layout = super::super::node::Layout::read(&old).unwrap();
    let children: Vec<_> = (0..layout.count)
        .map(|index| layout.child(&old, index).unwrap().encode())
        .collect();
    let branch = |keys: &[&'static [u8]], children: &[[u8; PageRef::BYTES]]| {
        let parts: Vec<_> = keys
            .iter()
            .zip(children)
            .map(|(&key, child)| Part {
                key,
                value: Cell::Inline(child),
            })
            .collect();
        write(1, &parts)
    };
    let (a, b) = (children[0], children[1]);
    for (what, page) in [
        ("one child", branch(&[b""], &[a])),
        ("one child twice", branch(&[b"", b"2"], &[a, a])),
        ("children in another order", branch(&[b"", b"2"], &[b, a])),
        ("itself", branch(&[b"", b"2"], &[a, root.encode()])),
    ] {
        let disk = disk.twin();
        forge_root(&disk, &superblock, &page, 1);
        check_told(&disk, what);
    }
    let run = |first, bytes| RunRef {
        first: PageId::new(first),
        bytes,
        checksum: Checksum::new([0; 8]),
    };
    for run in [
        run(u32::MAX, 4096),
        run(u32::MAX - 1, 9000),
        run(0, 4096),
        run(5, 16 << 20),
        RunRef {
            checksum: Checksum::of(b""),
            ..run(0, 0)
        },
        RunRef {
            checksum: Checksum::of(b""),
            ..run(u32::MAX, 0)
        },
    ] {
        let disk = disk.twin();
        let value = Cell::Reference(run.encode());
        let page = write(
            0,
            &[Part {
                key: b"long",
                value,
            }],
        );
        forge_root(&disk, &superblock, &page, 0);
        check_told(&disk, &format!("{run:?}"));
    }
}

#[test]
fn random_changes_under_right_checksums_never_panic() {
    let (disk, superblock) = disk_with_store();
    let (root, level) = superblock.root.unwrap();
    let old = page_of(&disk, root.page);
    let (mut rng, mut told) = (Rng::new(8), 0);
    for _ in 0..500 {
        let disk = disk.twin();
        let mut page = old;
        for _ in 0..=rng.below(3) {
            page[rng.index(120)] = rng.bytes(1)[0];
        }
        forge_root(&disk, &superblock, &page, level);
        told += u32::from(use_store(&disk).is_err());
    }
    assert!(told > 200, "{told}");
}
