//! Encrypted stores: what is on the disk, who opens it, and that no key and nonce seal twice.

use std::collections::HashMap;

use kimberlite_testkit::CrashMode;

use super::super::page::{BODY_BYTES, Checksum, PageRef};
use super::*;

const STORE: &str = "/p/store";
const SECRET: &[u8] = b"what nobody else may know";

fn empty_disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.create_dir_all(Path::new("/p")).unwrap();
    disk
}

fn create(disk: &SimulatedDisk, options: StoreOptions) -> Store {
    Store::create(disk, Path::new(STORE), identity(), options).unwrap()
}

fn open(disk: &SimulatedDisk, options: StoreOptions) -> Result<Store, StoreError> {
    Store::open(disk, Path::new(STORE), identity(), options)
}

/// Commits and flushes an entry under every 20th key, and a long value.
fn fill(store: &mut Store, position: u64) {
    let mut changes: Vec<_> = (0..200_u64)
        .map(|n| {
            (
                (20 * n + position).to_string().into_bytes(),
                Some(SECRET.to_vec()),
            )
        })
        .collect();
    changes.push((b"long".to_vec(), Some(SECRET.repeat(400))));
    commit(store, position, &changes);
    store.flush().unwrap();
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// What was sealed under each salt and counter, by all that is ever written.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Pairs>>);

#[derive(Default)]
struct Pairs {
    sealed: HashMap<([u8; 16], u64), Vec<u8>>,
    repeated: bool,
}

impl Ledger {
    fn watch(&self, disk: &SimulatedDisk) {
        let pairs = Arc::clone(&self.0);
        disk.set_write_observer(Arc::new(move |_, offset, bytes| {
            let mut pairs = pairs.lock().unwrap();
            for (page, bytes) in (offset / 4096..).zip(bytes.chunks(PAGE_BYTES)) {
                // A write that was cut short ends with no whole page.
                if page < 2 || bytes.len() < PAGE_BYTES {
                    continue;
                }
                let salt = *bytes[BODY_BYTES..].first_chunk().unwrap();
                let counter = *bytes[BODY_BYTES + 16..].first_chunk().unwrap();
                let pair = (salt, u64::from_le_bytes(counter));
                let before = pairs.sealed.insert(pair, bytes.to_vec());
                pairs.repeated |= before.is_some_and(|before| before != bytes);
            }
        }));
    }

    fn is_repeated(&self) -> bool {
        self.0.lock().unwrap().repeated
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().sealed.len()
    }
}

#[test]
fn nothing_of_keys_and_values_is_in_the_file() {
    for (options, is_plain) in [(COPIED, true), (encrypted(1), false)] {
        let disk = empty_disk(1);
        let mut store = create(&disk, options);
        fill(&mut store, 1);
        let contents = disk.contents(STORE);
        assert_eq!(holds(&contents, SECRET), is_plain);
        assert_eq!(holds(&contents, b"long"), is_plain);
        // The map of taken pages begins with the superblocks and all that was taken.
        let map = u64::MAX.to_le_bytes();
        assert!(!holds(&contents, &map) || is_plain);
    }
}

#[test]
fn the_bytes_of_an_encrypted_page_are_as_documented() {
    use kimberlite_crypto::{PageCipher, PagePlace, StoreIdentity};

    let disk = empty_disk(1);
    let mut store = create(&disk, encrypted(3));
    commit(&mut store, 1, &[(b"key".to_vec(), Some(b"value".to_vec()))]);
    store.flush().unwrap();
    let superblock = newest_superblock(&*store.file).unwrap();
    let (root, _) = superblock.root.unwrap();
    let contents = disk.contents(STORE);
    let at = usize::try_from(root.page.offset()).unwrap();
    let page = &contents[at..at + PAGE_BYTES];
    // The first salt that is drawn; before this page stands the map of the store without entries.
    let salt: [u8; 16] = Rng::new(3).bytes(16).try_into().unwrap();
    assert_eq!(page[4056..4072], salt);
    assert_eq!(page[4072..4080], 1_u64.to_le_bytes());
    assert_eq!(root.checksum, Checksum::of(page));
    let cipher = PageCipher::new(
        &ProjectionKey::new([1; 32]),
        &StoreIdentity {
            log_id: LogId::new([7; 32]),
            name_hash: *internal_hash(b"test").as_bytes(),
            version: 1,
        },
        &salt,
    );
    let mut body = page[..4056].to_vec();
    let place = PagePlace {
        page: root.page.get(),
        kind: 1,
    };
    let tag = page[4080..].try_into().unwrap();
    cipher.open(place, 1, &mut body, tag).unwrap();
    // A leaf of one entry, whose prefix is its key.
    assert_eq!(body[..12], [1, 0, 1, 0, 3, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(&body[12..20], b"keyvalue");
    assert!(body[20..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_store_opens_with_its_key_alone() {
    let disk = empty_disk(1);
    fill(&mut create(&disk, encrypted(1)), 1);
    let with = |key: u8| StoreOptions {
        key: Some(store_key(key, 9)),
        ..COPIED
    };
    let refused = open(&disk, with(2));
    assert!(
        matches!(refused, Err(StoreError::WrongKey { .. })),
        "{refused:?}"
    );
    let refused = open(&disk, COPIED);
    assert!(
        matches!(refused, Err(StoreError::Encrypted { .. })),
        "{refused:?}"
    );
    open(&disk, with(1)).unwrap().verify().unwrap();
    // Another store's identity is told before its key is looked at.
    let other = Identity::new(LogId::new([8; 32]), "test", 1);
    let refused = Store::open(&disk, Path::new(STORE), other, with(2));
    assert!(
        matches!(refused, Err(StoreError::Foreign { .. })),
        "{refused:?}"
    );

    let disk = empty_disk(1);
    fill(&mut create(&disk, COPIED), 1);
    let refused = open(&disk, with(1));
    assert!(
        matches!(refused, Err(StoreError::NotEncrypted { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_superblock_that_was_made_without_the_key_is_refused() {
    let disk = empty_disk(1);
    let mut store = create(&disk, encrypted(1));
    fill(&mut store, 1);
    let superblock = newest_superblock(&*store.file).unwrap();
    drop(store);
    let page = PageId::new(u32::from(superblock.flush % 2 == 1));
    for forged in [
        Superblock {
            applied: at(7),
            ..superblock
        },
        Superblock {
            code: Some([0; 32]),
            ..superblock
        },
        superblock.with_code(&ProjectionKey::new([2; 32])),
    ] {
        let disk = disk.twin();
        disk.overwrite(STORE, page.offset(), &forged.encode()[..]);
        let refused = open(&disk, encrypted(2));
        assert!(
            matches!(refused, Err(StoreError::WrongKey { .. })),
            "{refused:?}"
        );
    }
    let plain = Superblock {
        code: None,
        ..superblock
    };
    disk.overwrite(STORE, page.offset(), &plain.encode()[..]);
    let refused = open(&disk, encrypted(2));
    assert!(
        matches!(refused, Err(StoreError::NotEncrypted { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_page_that_was_moved_does_not_open() {
    let disk = empty_disk(1);
    let mut store = create(&disk, encrypted(1));
    fill(&mut store, 1);
    let superblock = newest_superblock(&*store.file).unwrap();
    drop(store);
    let (root, level) = superblock.root.unwrap();
    let contents = disk.contents(STORE);
    let at = usize::try_from(root.page.offset()).unwrap();
    let page = &contents[at..at + PAGE_BYTES];
    let pages = u32::try_from(contents.len() / PAGE_BYTES).unwrap();
    let told_of = |page| {
        let refused = open(&disk, encrypted(2)).and_then(|store| store.verify());
        let Err(StoreError::Damaged {
            page: told, what, ..
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!((told, what), (page, "was not encrypted for this place"));
    };
    // Its parent, whoever has the key, says that it stands at the end.
    let moved = PageRef {
        page: PageId::new(pages - 1),
        ..root
    };
    disk.overwrite(STORE, moved.page.offset(), page);
    let forge = |root, space| {
        let forged = Superblock {
            root: Some((root, level)),
            space,
            ..superblock
        };
        let forged = forged.with_code(&ProjectionKey::new([1; 32]));
        for slot in 0..FIRST_PAGE {
            disk.overwrite(STORE, PageId::new(slot).offset(), &forged.encode()[..]);
        }
    };
    forge(moved, superblock.space);
    told_of(moved.page.get());
    // A node in the place of the map of taken pages.
    let space = RunRef {
        first: root.page,
        bytes: superblock.space.bytes,
        checksum: Checksum::of(page),
    };
    forge(root, space);
    told_of(root.page.get());
}

#[test]
fn no_salt_and_counter_seal_twice_over_many_histories() {
    let (ledger, mut lives) = (Ledger::default(), 0);
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let mut disk = empty_disk(seed);
        ledger.watch(&disk);
        // One source of random bytes for all lives of a store, and one key for all stores.
        let options = encrypted(1000 + seed);
        let mut copy = None;
        let mut is_made = false;
        for _ in 0..5 {
            disk.crash_after(disk.ops() + 1 + rng.below(60));
            let opened = if is_made {
                open(&disk, options.clone())
            } else {
                Store::create(&disk, Path::new(STORE), identity(), options.clone())
            };
            if let Ok(mut store) = opened {
                is_made = true;
                lives += 1;
                let from = store.applied().position.get();
                for position in from + 1..from + 8 {
                    let changes: Vec<_> = (0..rng.below(20))
                        .map(|_| (random_key(&mut rng), Some(random_value(&mut rng))))
                        .collect();
                    commit(&mut store, position, &changes);
                    if rng.chance(1, 8) {
                        // No space for it, and then enough.
                        disk.set_space_bytes(Some(disk.used_bytes() + 4096 * rng.below(4)));
                    }
                    let begun = store.begin_flush();
                    if rng.chance(1, 2) {
                        // More comes while it runs.
                        let changes = [(random_key(&mut rng), Some(random_value(&mut rng)))];
                        commit(&mut store, position, &changes);
                    }
                    let flushed = begun.and_then(|_| store.finish_flush());
                    disk.set_space_bytes(None);
                    if flushed.is_err() && store.flush().is_err() {
                        break;
                    }
                }
            }
            disk = disk.crash(CrashMode::Mixed(rng.below(1 << 20)));
            if !disk.files().iter().any(|path| path.ends_with("store")) {
                is_made = false;
            } else if open(&disk, options.clone()).is_err() {
                break;
            }
            // Later on the older copy, as whoever puts a backup of the directory back.
            match copy.take() {
                Some(old) if rng.chance(1, 2) => disk = old,
                kept => copy = kept.or_else(|| is_made.then(|| disk.snapshot())),
            }
        }
        assert!(!ledger.is_repeated(), "seed {seed}");
    }
    assert!(
        lives > 300 && ledger.len() > 10_000,
        "{lives}, {}",
        ledger.len()
    );
}

#[test]
fn the_ledger_sees_a_salt_that_is_drawn_twice() {
    let ledger = Ledger::default();
    let disk = empty_disk(1);
    ledger.watch(&disk);
    fill(&mut create(&disk, encrypted(1)), 1);
    assert!(!ledger.is_repeated());
    // The same salt again, since the same seed.
    fill(&mut open(&disk, encrypted(1)).unwrap(), 2);
    assert!(ledger.is_repeated());
}

#[test]
fn two_copies_of_a_store_go_on_under_salts_of_their_own() {
    let ledger = Ledger::default();
    let disk = empty_disk(1);
    ledger.watch(&disk);
    let options = encrypted(1);
    fill(&mut create(&disk, options.clone()), 1);
    let copy = disk.twin();
    ledger.watch(&copy);
    let mut first = open(&disk, options.clone()).unwrap();
    let mut second = open(&copy, options).unwrap();
    for position in 2..6 {
        fill(&mut first, position);
        fill(&mut second, position + 10);
    }
    assert!(!ledger.is_repeated());
    assert!(ledger.len() > 40, "{}", ledger.len());
    first.verify().unwrap();
    second.verify().unwrap();
}

#[test]
fn a_key_that_sealed_many_pages_is_followed_by_another_one() {
    let disk = empty_disk(1);
    let options = encrypted(1);
    let mut store = create(&disk, options.clone());
    let salts = |disk: &SimulatedDisk| -> std::collections::BTreeSet<Vec<u8>> {
        let contents = disk.contents(STORE);
        let pages = contents.chunks(PAGE_BYTES).skip(2);
        pages
            .map(|page| page[BODY_BYTES..][..16].to_vec())
            .collect()
    };
    fill(&mut store, 1);
    store.sealer.as_mut().unwrap().count_to((1 << 32) - 1);
    fill(&mut store, 2);
    // Zeros stand in pages that were never written.
    assert_eq!(salts(&disk).len(), 2);
    fill(&mut store, 3);
    assert_eq!(salts(&disk).len(), 3);
    drop(store);
    open(&disk, options).unwrap().verify().unwrap();
}

#[test]
fn a_forked_process_and_one_without_random_bytes_write_nothing() {
    #[derive(Debug)]
    struct Dry;

    impl Entropy for Dry {
        fn fill(&self, _: &mut [u8]) -> bool {
            false
        }
    }

    let disk = empty_disk(1);
    let mut store = create(&disk, encrypted(1));
    fill(&mut store, 1);
    commit(&mut store, 2, &[(b"a".to_vec(), Some(b"b".to_vec()))]);
    store.sealer.as_mut().unwrap().disown();
    let ops = disk.ops();
    let refused = store.flush();
    assert!(
        matches!(refused, Err(StoreError::Forked { .. })),
        "{refused:?}"
    );
    let dry = StoreOptions {
        key: Some(StoreKey::new(ProjectionKey::new([1; 32]), Arc::new(Dry))),
        ..COPIED
    };
    let refused = open(&disk, dry);
    assert!(
        matches!(refused, Err(StoreError::Entropy { .. })),
        "{refused:?}"
    );
    assert_eq!(disk.ops(), ops);
}

#[test]
fn a_page_that_is_kept_is_read_and_decrypted_once() {
    let disk = empty_disk(1);
    let mut store = create(&disk, encrypted(1));
    fill(&mut store, 1);
    let snapshot = store.snapshot();
    assert_eq!(store.verify().unwrap().entries, 201);
    let find_all = || {
        for n in 0..200_u64 {
            let key = (20 * n + 1).to_string();
            assert_eq!(
                snapshot.find(key.as_bytes()).unwrap().as_deref(),
                Some(SECRET)
            );
        }
    };
    let before = disk.reads();
    find_all();
    let cold = disk.reads();
    find_all();
    assert!(cold > before);
    assert_eq!(disk.reads(), cold);
}
