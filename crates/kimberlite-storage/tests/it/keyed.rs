//! Frames that begin an append with an idempotency key: one that does not go on as its first frame says
//! is damage.

use kimberlite_storage::{
    DamageKind, Durability, FrameBuilder, FramePlacement, StorageError, UnplacedFrame, open_writer,
};
use kimberlite_types::{
    Idempotency, IdempotencyKeyHash, KeyedAppend, Offset, Position, RecordFlags, RecordKind,
    RequestHash, StreamId,
};

use crate::rig::{Rig, dir, dyn_disk, frame, options, witness};

/// What is changed of a group that is as it should be.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    count: Option<u32>,
    is_second_keyed: bool,
    stream: Option<u64>,
    kind: Option<RecordKind>,
    is_alone: bool,
}

fn keyed(count: u32) -> KeyedAppend {
    KeyedAppend {
        idempotency: Idempotency {
            key: IdempotencyKeyHash::new([1; 16]),
            request: RequestHash::new([2; 16]),
        },
        count,
    }
}

/// An append of three events in two frames, and another of one event behind it, at position 1.
fn group(change: Change) -> Vec<(UnplacedFrame, FramePlacement)> {
    let build = |kind, payloads: &[&[u8]], key: Option<KeyedAppend>| {
        let mut frame = FrameBuilder::new(kind, RecordFlags::PLAIN, payloads.len(), 0);
        if let Some(key) = key {
            frame = frame.keyed(&key);
        }
        for payload in payloads {
            frame.push(payload);
        }
        frame.build()
    };
    let at = |position| FramePlacement {
        base_position: Position::new(position),
        base_offset: Some(Offset::new(position - 1)),
        ..frame(position, &[vec![]]).1
    };
    let event = RecordKind::Event;
    let first = build(
        event,
        &[b"one", b"two"],
        Some(keyed(change.count.unwrap_or(3))),
    );
    let second_key = change.is_second_keyed.then(|| keyed(1));
    let second = build(change.kind.unwrap_or(event), &[b"three"], second_key);
    let mut second_at = at(3);
    if let Some(stream) = change.stream {
        second_at.stream = Some(StreamId::new(Position::new(stream)));
    }
    let mut group = vec![(first, at(1))];
    if !change.is_alone {
        group.push((second, second_at));
        group.push((build(event, &[b"four"], None), at(4)));
    }
    group
}

/// Writes the group, and opens the log again; returns what its first frame told.
fn reopened(change: Change) -> Result<Option<KeyedAppend>, StorageError> {
    let mut rig = Rig::new(1);
    rig.writer.commit(group(change), Durability::Group).unwrap();
    let disk = rig.disk.clone();
    drop(rig);
    let mut found = None;
    let mut visit = |frame: &kimberlite_storage::FrameView| {
        found = found.or(frame.keyed());
        Ok(())
    };
    let opened = open_writer(
        &dyn_disk(&disk),
        dir(),
        options(2),
        &witness(&disk),
        &mut visit,
    );
    opened.map(|_| found)
}

#[test]
fn an_append_with_a_key_tells_it_and_how_many_events_it_has() {
    assert_eq!(reopened(Change::default()).unwrap(), Some(keyed(3)));
    let is_alone = true;
    let count = Some(2);
    let alone = Change {
        count,
        is_alone,
        ..Change::default()
    };
    assert_eq!(reopened(alone).unwrap(), Some(keyed(2)));
}

#[test]
fn an_append_that_does_not_go_on_as_its_first_frame_says_is_damage() {
    let change = Change::default();
    let counted = |count| Change {
        count: Some(count),
        ..change
    };
    let cases = [
        counted(1),
        counted(5),
        counted(65_536),
        Change {
            is_second_keyed: true,
            ..change
        },
        Change {
            stream: Some(9),
            ..change
        },
        Change {
            kind: Some(RecordKind::Recovery),
            ..change
        },
        Change {
            is_alone: true,
            ..change
        },
    ];
    for change in cases {
        match reopened(change).unwrap_err() {
            StorageError::Corrupt(damage) => {
                assert_eq!(damage.kind, DamageKind::KeyedAppend, "{change:?}");
                assert_eq!(damage.position, Position::new(1), "{change:?}");
            }
            other => panic!("{change:?}: {other}"),
        }
    }
}
