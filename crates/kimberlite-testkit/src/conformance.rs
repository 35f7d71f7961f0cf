//! What every implementation of `Disk` does, as one check.

use std::path::Path;

use kimberlite_disk::{Access, Appender, Disk, DiskError, DiskFile, Entry, OpenMode, WriteMode};

/// Longer than a page, not a multiple of anything.
const LONG_BYTES: usize = 3 * 4096 + 17;

/// Checks a disk against the contract of [`Disk`] and [`DiskFile`], in directories of its own
/// below `root`, which need not exist. Panics with what differs.
pub fn check_disk(disk: &dyn Disk, root: &Path) {
    check_directories(disk, &root.join("directories"));
    check_names(disk, &root.join("names"));
    check_bytes(disk, &root.join("bytes"));
    check_lengths(disk, &root.join("lengths"));
    check_refusals(disk, &root.join("refusals"));
    check_atomic_write(disk, &root.join("atomic"));
    check_appenders(disk, &root.join("appenders"));
    check_locks(disk, &root.join("locks"));
}

fn check_directories(disk: &dyn Disk, root: &Path) {
    let deep = root.join("a/b/c");
    assert!(!exists(disk, root));
    for _ in 0..2 {
        disk.create_dir_all(&deep)
            .expect("a tree is made, and made again");
    }
    assert!(exists(disk, &deep));
    assert!(disk.list(&deep).expect("it is there").is_empty());
    assert_eq!(names(disk, root), ["a"]);

    disk.create_dir(&root.join("z")).expect("the name is free");
    let taken = disk.create_dir(&root.join("z"));
    assert!(
        matches!(taken, Err(DiskError::AlreadyExists { .. })),
        "{taken:?}"
    );
    let orphan = disk.create_dir(&root.join("missing/z"));
    assert!(
        matches!(orphan, Err(DiskError::NotFound { .. })),
        "{orphan:?}"
    );

    create(disk, &root.join("m"), b"12345");
    let file = Entry {
        name: "m".to_owned(),
        is_dir: false,
        bytes: 5,
    };
    let directory = |name: &str| Entry {
        name: name.to_owned(),
        is_dir: true,
        bytes: 0,
    };
    let expected = [directory("a"), file, directory("z")];
    assert_eq!(
        disk.list(root).expect("it is there"),
        expected,
        "sorted by name"
    );

    disk.open_dir(root)
        .and_then(|opened| opened.sync())
        .expect("a directory can be synced");
    disk.sync_dir(root).expect("by its name too");
    let path = root.join("m");
    assert!(disk.open_dir(&path).is_err(), "a file is no directory");
    assert!(disk.list(&path).is_err(), "nor can it be listed");
    assert!(
        disk.create_dir_all(&path.join("below")).is_err(),
        "nor hold others"
    );
    for missing in [
        disk.sync_dir(&root.join("n")),
        disk.list(&root.join("n")).map(|_| ()),
    ] {
        assert!(
            matches!(missing, Err(DiskError::NotFound { .. })),
            "{missing:?}"
        );
    }
}

fn check_names(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(&root.join("other"))
        .expect("a fresh tree");
    let (one, two, far) = (root.join("one"), root.join("two"), root.join("other/far"));
    let open_one = create(disk, &one, b"one");
    create(disk, &two, b"two");

    let taken = disk.create(&one, Access::Shared);
    assert!(
        matches!(taken, Err(DiskError::AlreadyExists { .. })),
        "{taken:?}"
    );
    assert_eq!(read(disk, &one), b"one", "and is left alone");

    disk.rename(&one, &two).expect("over a file that is there");
    assert_eq!(names(disk, root), ["other", "two"]);
    assert_eq!(read(disk, &two), b"one");
    open_one
        .write_all_at(&[b"ONE"], 0)
        .expect("an open file follows its file, not its name");
    assert_eq!(read(disk, &two), b"ONE");

    disk.rename(&two, &far).expect("into another directory");
    assert!(!exists(disk, &two) && exists(disk, &far));
    disk.rename(&far, &far).expect("onto itself");

    disk.remove(&far).expect("it is there");
    assert!(!exists(disk, &far));
    assert_eq!(
        content(&*open_one),
        b"ONE",
        "an open file outlives its name"
    );
    open_one.sync_all().expect("and can be synced");

    let missing = [
        disk.remove(&far),
        disk.rename(&far, &one),
        disk.open(&far, OpenMode::Read).map(|_| ()),
        disk.open(&far, OpenMode::ReadWrite).map(|_| ()),
        disk.create(&root.join("missing/file"), Access::Shared)
            .map(|_| ()),
        disk.read(&far, 1).map(|_| ()),
    ];
    for refused in missing {
        assert!(
            matches!(refused, Err(DiskError::NotFound { .. })),
            "{refused:?}"
        );
    }
    create(disk, &one, b"");
    let target = disk.rename(&one, &root.join("missing/file"));
    assert!(
        matches!(target, Err(DiskError::NotFound { .. })),
        "{target:?}"
    );
    assert!(
        disk.remove(&root.join("other")).is_err(),
        "a directory is not removed as a file"
    );
}

fn check_bytes(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).expect("a fresh tree");
    let path = root.join("file");
    let file = create(disk, &path, b"");
    assert_eq!(file.path(), path);
    let long: Vec<u8> = (0..251_u8).cycle().take(LONG_BYTES).collect();
    let (head, tail) = long.split_at(1000);
    file.write_all_at(&[b"", head, b"", tail, b""], 5)
        .expect("a gathered write past the end");
    let mut expected = vec![0; 5];
    expected.extend(&long);
    assert_eq!(content(&*file), expected, "the gap reads as zeros");

    file.write_all_at(&[b"over", b"written"], 4095)
        .expect("across a page");
    expected.splice(4095..4106, *b"overwritten");
    let second = disk.open(&path, OpenMode::Read).expect("it is there");
    assert_eq!(
        content(&*second),
        expected,
        "another handle sees it before any sync"
    );
    file.sync_data().expect("a sync");

    let mut part = [0; 11];
    second
        .read_exact_at(&mut part, 4095)
        .expect("the file is that long");
    assert_eq!(&part, b"overwritten");
    for bytes in [0, 1, 4096, expected.len()] {
        let mapped = second.map(u64_of(bytes)).expect("the file is that long");
        assert_eq!(mapped, expected[..bytes], "a mapping equals a read");
    }
    if let Some(view) = second.view(4106).expect("the file is that long") {
        assert_eq!(
            view.bytes(4095, 11),
            Some(&b"overwritten"[..]),
            "a view equals a read"
        );
        assert_eq!(view.bytes(4096, 11), None, "a view ends where it was told");
    }
    assert_eq!(
        disk.read(&path, u64_of(expected.len()))
            .expect("just short enough"),
        expected
    );
}

fn check_lengths(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).expect("a fresh tree");
    let file = create(disk, &root.join("file"), b"0123456789");
    file.set_bytes(4).expect("a cut");
    assert_eq!(content(&*file), b"0123");
    file.set_bytes(8).expect("a growth");
    assert_eq!(content(&*file), b"0123\0\0\0\0", "what was cut is gone");
    file.zero(2..3).expect("zeros within");
    assert_eq!(content(&*file), b"01\x003\0\0\0\0");
    file.zero(5..5).expect("no zeros");
    file.write_all_at(&[b"x"], 7).expect("a byte at the end");
    let end = (1 << 20) + 70_001;
    file.zero(7..end).expect("many zeros past the end");
    assert_eq!(file.bytes().expect("a length"), end);
    assert!(content(&*file)[7..].iter().all(|&byte| byte == 0));
    file.allocate(end..end).expect("no space");
    file.allocate(end..end + 5000)
        .expect("space behind the end");
    assert_eq!(file.bytes().expect("a length"), end + 5000);
    assert!(content(&*file)[7..].iter().all(|&byte| byte == 0));
    file.set_bytes(0).expect("a cut to nothing");
    assert_eq!(file.bytes().expect("a length"), 0);
    file.write_all_at(&[], 100).expect("nothing to write");
    file.write_all_at(&[b""], 100).expect("nothing to write");
    assert_eq!(file.bytes().expect("a length"), 0, "nothing grows nothing");
}

fn check_refusals(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).expect("a fresh tree");
    let path = root.join("file");
    create(disk, &path, b"12345");
    let file = disk.open(&path, OpenMode::Read).expect("it is there");
    let mut buffer = [0; 3];
    file.read_exact_at(&mut buffer, 2).expect("up to the end");
    for offset in [3, 5, 6, 1 << 40] {
        let short = file.read_exact_at(&mut buffer, offset);
        let expected = (offset, 3);
        assert!(
            matches!(short, Err(DiskError::ShortRead { offset, bytes, .. }) if (offset, bytes) == expected),
            "{short:?}"
        );
    }
    file.read_exact_at(&mut [], 5).expect("nothing at the end");
    let short = file.map(6);
    assert!(
        matches!(short, Err(DiskError::ShortRead { .. })),
        "{short:?}"
    );
    let short = file.view(6);
    assert!(
        matches!(short, Ok(None) | Err(DiskError::ShortRead { .. })),
        "{short:?}"
    );
    let large = disk.read(&path, 4);
    assert!(
        matches!(
            large,
            Err(DiskError::TooLarge {
                bytes: 5,
                bytes_max: 4,
                ..
            })
        ),
        "{large:?}"
    );
    for refused in [
        file.write_all_at(&[b"x"], 0),
        file.set_bytes(1),
        file.zero(0..1),
        file.allocate(5..6),
    ] {
        let error = refused.expect_err("the handle is for reading");
        assert_eq!(error.path(), path);
    }
    assert_eq!(read(disk, &path), b"12345");
    let file = disk.open(&path, OpenMode::ReadWrite).expect("it is there");
    assert!(
        file.write_all_at(&[b"x"], u64::MAX - 4).is_err(),
        "no file is that long"
    );
    assert!(file.set_bytes(u64::MAX).is_err(), "no file is that long");
    assert_eq!(read(disk, &path), b"12345");
}

fn check_atomic_write(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).expect("a fresh tree");
    let path = root.join("file");
    create(
        disk,
        &root.join("file.tmp"),
        b"a longer left-over of an earlier crash",
    );
    for (content, access) in [
        (&b"first"[..], Access::Private),
        (b"2", Access::Shared),
        (b"", Access::Private),
    ] {
        disk.write_new_atomic(&path, content, access)
            .expect("a replacement");
        assert_eq!(read(disk, &path), content);
        assert_eq!(names(disk, root), ["file"], "nothing is left over");
        let file = disk.open(&path, OpenMode::Read).expect("it is there");
        assert_eq!(
            file.is_private().expect("a mode"),
            access == Access::Private
        );
    }
    let orphan = disk.write_new_atomic(&root.join("missing/file"), b"x", Access::Shared);
    assert!(
        matches!(orphan, Err(DiskError::NotFound { .. })),
        "{orphan:?}"
    );
}

/// Every way to append leaves the same bytes, also when it goes on where another one stopped.
fn check_appenders(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).expect("a fresh tree");
    let long: Vec<u8> = (1..251_u8).cycle().take(2 * LONG_BYTES).collect();
    let (begun, rest) = long.split_at(LONG_BYTES);
    let modes = [WriteMode::Buffered, WriteMode::Direct];
    for (first, second) in modes
        .iter()
        .flat_map(|a| modes.iter().map(move |b| (*a, *b)))
    {
        let path = root.join(format!("{first:?}-{second:?}"));
        let file = create(disk, &path, &vec![0; 64 << 10]);
        file.sync_all().expect("a sync");
        let open = |at: usize, mode| {
            let file = disk.open(&path, OpenMode::ReadWrite).expect("it is there");
            Appender::open(disk, file, &path, u64_of(at), mode).expect("there is space")
        };
        let appender = open(8, first);
        appender
            .append(&[b"", &begun[..9]])
            .expect("there is space");
        appender.append(&[&begun[9..]]).expect("there is space");
        appender.sync().expect("a sync");
        drop(appender);
        let appender = open(8 + begun.len(), second);
        for part in rest.chunks(1000) {
            appender.append(&[part]).expect("there is space");
            appender.sync().expect("a sync");
        }
        let mut expected = vec![0; 64 << 10];
        expected[8..8 + long.len()].copy_from_slice(&long);
        assert!(read(disk, &path) == expected, "{first:?}, then {second:?}");
    }
}

fn check_locks(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(&root.join("other"))
        .expect("a fresh tree");
    let path = root.join("LOCK");
    let held = disk.lock(&path).expect("a lock that nobody has");
    for _ in 0..2 {
        let error = disk.lock(&path).expect_err("one handle holds it");
        assert!(matches!(error, DiskError::Locked { .. }), "{error:?}");
        assert_eq!(error.path(), path);
    }
    let _other = disk
        .lock(&root.join("other/LOCK"))
        .expect("the lock of another directory");
    drop(held);
    assert!(exists(disk, &path), "the file stays");
    let _again = disk.lock(&path).expect("a lock that was given back");
}

fn create(disk: &dyn Disk, path: &Path, content: &[u8]) -> std::sync::Arc<dyn DiskFile> {
    let file = disk.create(path, Access::Shared).expect("the name is free");
    file.write_all_at(&[content], 0).expect("there is space");
    file
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    disk.read(path, u64::MAX).expect("the file is there")
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let bytes = file.bytes().expect("a length");
    let mut content = vec![0; usize::try_from(bytes).expect("a small file")];
    file.read_exact_at(&mut content, 0)
        .expect("the file is that long");
    content
}

fn exists(disk: &dyn Disk, path: &Path) -> bool {
    disk.exists(path).expect("an answer")
}

fn names(disk: &dyn Disk, path: &Path) -> Vec<String> {
    let entries = disk.list(path).expect("the directory is there");
    entries.into_iter().map(|entry| entry.name).collect()
}

fn u64_of(length: usize) -> u64 {
    u64::try_from(length).expect("an address space has at most 64 bits")
}
