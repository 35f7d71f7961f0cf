use std::os::unix::fs::PermissionsExt;

use super::*;

/// Runs `write_gathered` against a target that takes at most `bytes_max` bytes of at most
/// `slices_max` slices a call and is interrupted before each.
fn gathered(buffers: &[&[u8]], bytes_max: usize, slices_max: usize) -> Vec<u8> {
    let mut content = Vec::new();
    let mut interrupt = true;
    let slices = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
    write_gathered(slices, 7, |slices, offset| {
        interrupt = !interrupt;
        if !interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        assert_eq!(offset, 7 + u64::try_from(content.len()).unwrap());
        let all: Vec<u8> = slices
            .iter()
            .take(slices_max)
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let taken = all.len().min(bytes_max);
        content.extend_from_slice(&all[..taken]);
        Ok(taken)
    })
    .unwrap();
    content
}

#[test]
fn short_and_interrupted_writes_are_continued_where_they_stopped() {
    let buffers: [&[u8]; 6] = [b"", b"abc", b"", b"defgh", b"i", b""];
    for bytes_max in 1..10 {
        assert_eq!(gathered(&buffers, bytes_max, usize::MAX), b"abcdefghi");
    }
    // One slice a call, as with a list that is longer than the system takes.
    assert_eq!(gathered(&[b"ab", b"cd", b"ef"], usize::MAX, 1), b"abcdef");
}

#[test]
fn nothing_to_write_calls_nothing_and_a_write_of_nothing_is_an_error() {
    let slices = vec![IoSlice::new(b""), IoSlice::new(b"")];
    write_gathered(slices, 0, |_, _| unreachable!("there is nothing to write")).unwrap();
    let stuck = write_gathered(vec![IoSlice::new(b"a")], 0, |_, _| Ok(0)).unwrap_err();
    assert_eq!(stuck.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn more_buffers_than_the_system_takes_in_one_call_are_all_written() {
    let scratch = tempfile::tempdir().unwrap();
    let file = OsDisk::new()
        .create(&scratch.path().join("many"), Access::Shared)
        .unwrap();
    let content: Vec<u8> = (0..251_u8).cycle().take(5_000).collect();
    let buffers: Vec<&[u8]> = content.chunks(1).collect();
    file.write_all_at(&buffers, 3).unwrap();
    let mut read = vec![0; content.len()];
    file.read_exact_at(&mut read, 3).unwrap();
    assert_eq!(read, content);
}

#[test]
fn a_private_file_has_mode_0600_and_a_widened_one_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("root.key");
    let file = OsDisk::new().create(&path, Access::Private).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(file.is_private().unwrap());
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(!file.is_private().unwrap(), "mode {mode:o}");
    }
}

#[test]
fn an_atomic_write_gives_the_mode_that_was_asked_for_whatever_lay_around() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("root.key");
    fs::write(
        scratch.path().join("root.key.tmp"),
        "left over, readable by all",
    )
    .unwrap();
    fs::write(&path, "old, readable by all").unwrap();
    let disk = OsDisk::new();
    disk.write_new_atomic(&path, b"new", Access::Private)
        .unwrap();
    assert!(
        disk.open(&path, OpenMode::Read)
            .unwrap()
            .is_private()
            .unwrap()
    );
    assert_eq!(disk.read(&path, 3).unwrap(), b"new");
}

#[test]
fn a_mapping_keeps_the_old_content_when_the_name_gets_a_new_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("0.seg");
    let disk = OsDisk::new();
    disk.write_new_atomic(&path, b"old content", Access::Shared)
        .unwrap();
    let mapped = disk.open(&path, OpenMode::Read).unwrap().map(11).unwrap();
    disk.write_new_atomic(&path, b"new", Access::Shared)
        .unwrap();
    assert_eq!(mapped, &b"old content"[..]);
}

#[test]
fn errors_name_the_operation_and_keep_the_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    let disk = OsDisk::new();
    disk.create(&path, Access::Shared).unwrap();
    let file = disk.open(&path, OpenMode::Read).unwrap();
    let refused = file.write_all_at(&[b"x"], 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("cannot write {}", path.display())
    );
    assert!(
        matches!(refused, DiskError::Io { operation: "write", source, .. }
        if source.raw_os_error().is_some())
    );
    let refused = disk.open_dir(&path).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("cannot open directory {}", path.display())
    );
}
