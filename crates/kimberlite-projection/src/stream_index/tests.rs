//! The index against a model that keeps the position of every event.

use std::collections::BTreeMap;

use kimberlite_types::{ChainHash, LogId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::projection::{ApplyError, Projection as _};
use crate::store::{Applied, Identity, Store, StoreOptions};
use crate::{Batch, Frames, StoredRuns, StreamRuns};

/// What a log is made of: a new stream, events of the nth stream, a record of another kind.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create,
    Append { nth: usize, count: u32 },
    Pass { kind: RecordKind, count: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let other = prop_oneof![
        Just(RecordKind::Checkpoint),
        Just(RecordKind::KeySession),
        Just(RecordKind::Restore),
        Just(RecordKind::Unknown(200)),
    ];
    prop_oneof![
        1 => Just(Step::Create),
        6 => (0..4_usize, 1..5_u32).prop_map(|(nth, count)| Step::Append { nth, count }),
        1 => (other, 0..3_u32).prop_map(|(kind, count)| Step::Pass { kind, count }),
    ]
}

/// Every event of every stream by its position: the obvious model.
type Model = BTreeMap<StreamId, Vec<Position>>;

fn frame(kind: RecordKind, position: Position, count: u32) -> FrameSummary {
    FrameSummary {
        kind,
        position,
        count,
        stream: None,
        offset: None,
        time: Timestamp::default(),
    }
}

fn write(steps: &[Step]) -> (Vec<FrameSummary>, Model) {
    let mut position = Position::new(1);
    let mut frames = vec![frame(RecordKind::Genesis, Position::ZERO, 1)];
    let mut model = Model::new();
    for step in steps {
        let frame = match *step {
            Step::Create => {
                model.insert(StreamId::new(position), Vec::new());
                frame(RecordKind::StreamCreated, position, 1)
            }
            Step::Append { nth, count } => {
                let nth = nth % model.len().max(1);
                let Some((stream, events)) = model.iter_mut().nth(nth) else {
                    continue;
                };
                let offset = events.len() as u64;
                let first = position.get();
                events.extend((first..first + u64::from(count)).map(Position::new));
                FrameSummary {
                    stream: Some(*stream),
                    offset: Some(Offset::new(offset)),
                    ..frame(RecordKind::Event, position, count)
                }
            }
            Step::Pass { kind, count } => frame(kind, position, count),
        };
        position = Position::new(position.get() + u64::from(frame.count));
        frames.push(frame);
    }
    (frames, model)
}

fn index_of(frames: &[FrameSummary], run_frames: usize) -> StreamIndex {
    let mut index = StreamIndex::new();
    for frames in frames.chunks(run_frames) {
        let run = FrameRun::new(index.applied(), frames).unwrap();
        index.apply(&run).unwrap();
        check_invariants(&index);
    }
    index
}

fn check_invariants(index: &StreamIndex) {
    assert!(index.streams.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(index.streams.len(), index.slots.len());
    for (slot, entry) in index.streams.iter().enumerate() {
        assert_eq!(index.slots.get(&entry.id), Some(&slot));
        let mut end = index.found_from(entry.id).get();
        assert!(end == 0 || index.from() > Position::ZERO);
        for run in index.runs(entry.id, 0..u64::MAX) {
            assert_eq!(run.offset.get(), end);
            end += run.count;
        }
        assert_eq!(end, entry.len);
    }
    let parts = index.parts.iter();
    assert!((1..=PARTS_MAX + 1).contains(&parts.len()));
    assert!(parts.clone().is_sorted_by(|a, b| a.first < b.first));
    for (part, next) in parts
        .clone()
        .zip(parts.map(|part| part.first.get()).skip(1).chain([u64::MAX]))
    {
        let stretches = part.streams.values();
        assert_eq!(
            stretches.clone().map(|it| it.starts.len()).sum::<usize>(),
            part.runs
        );
        for stretch in stretches {
            let ends = stretch.starts.iter().skip(1).map(|start| start.offset);
            let mut position = part.first.get();
            for (nth, (start, end)) in stretch
                .starts
                .iter()
                .zip(ends.chain([stretch.end]))
                .enumerate()
            {
                assert!(start.offset < end);
                assert!(
                    position + u64::from(nth > 0) <= start.position,
                    "runs that touch are merged"
                );
                position = start.position + (end - start.offset);
            }
            assert!(position <= next, "a part ends where the next one begins");
        }
    }
}

fn positions(runs: impl Iterator<Item = Run>) -> Vec<Position> {
    runs.flat_map(|run| (0..run.count).map(move |i| Position::new(run.position.get() + i)))
        .collect()
}

fn check_range(index: &StreamIndex, stream: StreamId, events: &[Position], range: (u64, u64)) {
    let (first, end) = range;
    let offsets = first..end;
    let runs: Vec<Run> = index.runs(stream, offsets.clone()).collect();
    let bounds = |at: u64| usize::try_from(at).unwrap().min(events.len());
    let expected = events.get(bounds(first)..bounds(end)).unwrap_or_default();
    assert_eq!(positions(runs.iter().copied()), expected, "{range:?}");
    assert!(runs.iter().all(|run| run.count > 0));
    assert!(runs.first().is_none_or(|run| run.offset.get() == first));

    let mut backward: Vec<Run> = index.runs(stream, offsets.clone()).rev().collect();
    backward.reverse();
    assert_eq!(backward, runs, "both directions give the same runs");

    let mut both = index.runs(stream, offsets);
    let mut met = Vec::new();
    let mut tail = Vec::new();
    while let Some(run) = both.next() {
        met.push(run);
        tail.extend(both.next_back());
    }
    met.extend(tail.into_iter().rev());
    assert_eq!(met, runs, "both ends meet without loss");
}

proptest! {
    #[test]
    fn the_index_answers_as_the_model_however_the_log_is_cut(
        steps in prop::collection::vec(step(), 0..60),
        run_frames in 1..9_usize,
        range in (0..40_u64, 0..40_u64),
    ) {
        let (frames, model) = write(&steps);
        let index = index_of(&frames, run_frames);
        let records: u64 = frames.iter().map(|frame| u64::from(frame.count)).sum();
        prop_assert_eq!(index.applied().get(), records);
        let expected: Vec<_> = model.iter().map(|(id, events)| (*id, events.len() as u64)).collect();
        prop_assert_eq!(index.streams().collect::<Vec<_>>(), expected);
        for (stream, events) in &model {
            prop_assert_eq!(index.len(*stream), events.len() as u64);
            for offset in 0..events.len() + 2 {
                let found = index.position_of(*stream, Offset::new(offset as u64));
                prop_assert_eq!(found, events.get(offset).copied());
            }
            prop_assert_eq!(&positions(index.runs(*stream, 0..u64::MAX)), events);
            check_range(&index, *stream, events, range);
            check_range(&index, *stream, events, (range.0, u64::MAX));
        }
    }
}

#[test]
fn events_next_to_each_other_are_one_run() {
    let append = Step::Append { nth: 0, count: 3 };
    let (frames, _) = write(&[Step::Create, append, append, append]);
    let index = index_of(&frames, 2);
    let stream = StreamId::new(Position::new(1));
    let run = Run {
        offset: Offset::ZERO,
        position: Position::new(2),
        count: 9,
    };
    assert_eq!(index.runs(stream, 0..u64::MAX).collect::<Vec<_>>(), [run]);
}

#[test]
fn idle_watermarks_are_passed_over_whatever_kind_they_name() {
    let (mut frames, _) = write(&[Step::Create]);
    frames.push(frame(RecordKind::Event, Position::new(2), 0));
    frames.push(frame(RecordKind::StreamCreated, Position::new(2), 0));
    let index = index_of(&frames, 1);
    assert_eq!(index.applied(), Position::new(2));
    assert_eq!(index.streams().len(), 1);
}

#[test]
fn offsets_that_are_not_there_have_no_runs() {
    let append = Step::Append { nth: 0, count: 3 };
    let pass = Step::Pass {
        kind: RecordKind::Checkpoint,
        count: 1,
    };
    let (frames, _) = write(&[Step::Create, append, pass, append]);
    let index = index_of(&frames, 9);
    let stream = StreamId::new(Position::new(1));
    let check = |runs: Runs<'_>, expected: &[u64]| {
        let found: Vec<u64> = positions(runs).into_iter().map(Position::get).collect();
        assert_eq!(found, expected);
    };
    check(index.runs(stream, 0..u64::MAX), &[2, 3, 4, 6, 7, 8]);
    check(index.runs(stream, 2..4), &[4, 6]);
    check(index.runs(stream, 6..7), &[]);
    check(
        index.runs(StreamId::new(Position::new(0)), 0..u64::MAX),
        &[],
    );
}

#[test]
fn a_gap_or_a_repetition_changes_nothing() {
    let (frames, _) = write(&[Step::Create, Step::Append { nth: 0, count: 2 }]);
    let mut index = index_of(&frames, 1);
    let applied = index.applied();
    for (at, gap) in [
        (applied.get() + 1, true),
        (applied.get() - 1, false),
        (0, false),
    ] {
        let frames = [frame(RecordKind::StreamCreated, Position::new(at), 1)];
        let run = FrameRun::new(Position::new(at), &frames).unwrap();
        let error = index.apply(&run).unwrap_err();
        match error {
            IndexError::Gap { expected, .. } => assert!(gap && expected == applied),
            IndexError::Repeated { expected, .. } => assert!(!gap && expected == applied),
            other => panic!("{other}"),
        }
        assert_eq!(index.applied(), applied);
        assert_eq!(index.streams().len(), 1);
    }
}

#[test]
fn events_that_do_not_fit_their_stream_stop_the_index_where_they_stand() {
    let stream = StreamId::new(Position::new(1));
    let events = |stream: Option<u64>, offset: Option<u64>| FrameSummary {
        stream: stream.map(|id| StreamId::new(Position::new(id))),
        offset: offset.map(Offset::new),
        ..frame(RecordKind::Event, Position::new(2), 2)
    };
    let check = |events: FrameSummary, expected: &str| {
        let (mut frames, _) = write(&[Step::Create]);
        frames.push(events);
        let run = FrameRun::new(Position::ZERO, &frames).unwrap();
        let mut index = StreamIndex::new();
        let error = index.apply(&run).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(index.applied(), Position::new(2));
        assert_eq!(index.len(stream), 0);
        check_invariants(&index);
    };
    check(
        events(Some(1), Some(1)),
        "offset 1 of stream 1, where 0 is next",
    );
    check(events(Some(0), Some(0)), "stream 0, which does not exist");
    check(events(None, Some(0)), "name no stream and offset");
    check(events(Some(1), None), "name no stream and offset");
}

impl Frames for Vec<FrameSummary> {
    fn frames(
        &self,
        positions: Range<Position>,
        take: &mut dyn FnMut(&FrameSummary),
    ) -> Result<(), ApplyError> {
        let frames = self.iter();
        let frames = frames.filter(|frame| positions.contains(&frame.position) && frame.count > 0);
        frames.for_each(take);
        Ok(())
    }
}

/// An index of which a store takes what is before `stored`, and the store.
fn divided(
    frames: &[FrameSummary],
    part_runs_max: usize,
    batch_frames: usize,
    stored: Position,
) -> (StreamIndex, StoredRuns) {
    let mut index = StreamIndex::new();
    index.split_after(part_runs_max);
    let identity = Identity::new(LogId::new([1; 32]), STREAM_RUNS_NAME, 1);
    let mut store = Store::in_memory(identity, StoreOptions::default()).unwrap();
    let runs = StreamRuns::new(frames.to_vec());
    for frames in frames.chunks(batch_frames) {
        let first = index.applied();
        let run = FrameRun::new(first, frames).unwrap();
        index.apply(&run).unwrap();
        if run.end() <= stored {
            let end = Applied {
                position: run.end(),
                chain: ChainHash::new([0; 32]),
            };
            let mut write = store.write();
            let batch = Batch::new(first, &[], end).unwrap();
            runs.apply(&batch, &mut write).unwrap();
            write.commit(end).unwrap();
        }
        index.release(store.applied().position);
        check_invariants(&index);
    }
    (index, StoredRuns::from(store.snapshot()))
}

/// All runs before offset `end` that the store gives, a few at a time, in both directions.
fn stored_positions(
    stored: &StoredRuns,
    stream: StreamId,
    end: u64,
    runs_max: usize,
) -> Vec<Position> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let mut next = 0;
    while next < end {
        let runs = stored.first_runs(stream, next..end, runs_max).unwrap();
        assert!((1..=runs_max).contains(&runs.len()), "there is more");
        next += runs.iter().map(|run| run.count).sum::<u64>();
        first.extend(positions(runs.into_iter()));
    }
    let mut next = end;
    while next > 0 {
        let runs = stored.last_runs(stream, 0..next, runs_max).unwrap();
        assert!((1..=runs_max).contains(&runs.len()), "there is more");
        next -= runs.iter().map(|run| run.count).sum::<u64>();
        let mut some = positions(runs.into_iter());
        some.append(&mut last);
        last = some;
    }
    assert_eq!(first, last);
    first
}

proptest! {
    #[test]
    fn what_was_let_go_of_is_in_the_store(
        steps in prop::collection::vec(step(), 0..80),
        (part_runs_max, batch_frames, runs_max) in (1..6_usize, 1..9_usize, 1..5_usize),
        stored in 0..200_u64,
    ) {
        let (frames, model) = write(&steps);
        let (index, runs) = divided(&frames, part_runs_max, batch_frames, Position::new(stored));
        prop_assert!(index.from() <= runs.applied().position);
        let read = StreamIndex::from_snapshot(&index.to_snapshot()).unwrap();
        prop_assert_eq!(read.to_snapshot(), index.to_snapshot());
        prop_assert!(read.streams().eq(index.streams()));
        for (stream, events) in &model {
            let from = index.found_from(*stream);
            prop_assert_eq!(read.found_from(*stream), from);
            let (before, behind) = events.split_at(usize::try_from(from.get()).unwrap());
            for index in [&index, &read] {
                prop_assert_eq!(&positions(index.runs(*stream, 0..u64::MAX)), behind);
                for (offset, position) in events.iter().enumerate() {
                    let offset = Offset::new(offset as u64);
                    let expected = (offset >= from).then_some(*position);
                    prop_assert_eq!(index.position_of(*stream, offset), expected);
                }
            }
            prop_assert_eq!(stored_positions(&runs, *stream, from.get(), runs_max), before);
        }
        let mut whole = index.clone();
        let mut all = StreamIndex::new();
        let before: Vec<_> = frames.iter().filter(|it| it.position < index.from()).copied().collect();
        all.apply(&FrameRun::new(Position::ZERO, &before).unwrap()).unwrap();
        whole.fill_from(&mut all);
        prop_assert_eq!(whole.from(), Position::ZERO);
        check_invariants(&whole);
        for (stream, events) in &model {
            prop_assert_eq!(&positions(whole.runs(*stream, 0..u64::MAX)), events);
        }
    }
}

#[test]
fn a_run_that_goes_on_over_many_batches_is_one_entry_of_the_store() {
    let append = Step::Append { nth: 0, count: 3 };
    let steps: Vec<_> = [Step::Create].into_iter().chain([append; 50]).collect();
    let (frames, _) = write(&steps);
    let (_, runs) = divided(&frames, 1, 1, Position::new(1_000));
    let stream = StreamId::new(Position::new(1));
    let found = runs.first_runs(stream, 0..150, 9).unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn parts_are_few_while_no_store_comes_along() {
    let (mut steps, append) = (vec![Step::Create, Step::Create], |nth| Step::Append {
        nth,
        count: 1,
    });
    steps.extend((0..1_000).map(|n| append(n % 2)));
    let (frames, _) = write(&steps);
    let (index, _) = divided(&frames, 4, 7, Position::ZERO);
    assert_eq!((index.parts.len(), index.runs_here()), (PARTS_MAX, 1_000));
    let (index, _) = divided(&frames, 4, 7, Position::new(10_000));
    assert!(index.runs_here() < 16, "{}", index.runs_here());
}
