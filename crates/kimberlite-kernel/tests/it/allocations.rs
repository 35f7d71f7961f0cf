//! What the kernel allocates.
//!
//! Goal: a command costs no allocation, however many streams there are, so that neither the commit
//! lock nor a replay ever waits for memory. Method: a state with 100,000 streams and a full window of
//! keys, whose maps have grown to where they stay; then the allocations of thousands of commands are
//! counted, and there must be none. The count proves itself: what is known to allocate, a copy of the
//! state above all, is counted too.

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use kimberlite_kernel::{
    Command, Effect, ErasureAct, ExpectedVersion, Rejection, ReplayedFrame, Retention,
    RetentionAct, Scope, Sealing, State, apply_committed, replay,
};
use kimberlite_types::limits::{IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_POSITIONS_MAX};
use kimberlite_types::{
    HoldId, Idempotency, IdempotencyKeyHash, KeyedAppend, LogId, NameHash, Position, RecordKind,
    RequestHash, SessionId, StreamId, Timestamp,
};

const STREAMS: u64 = 100_000;
const COMMANDS: u64 = 10_000;
const TIME: Timestamp = Timestamp::from_nanoseconds(1_700_000_000_000_000_000);

/// A state, and what appends to it go through.
struct Many {
    state: State,
    session: SessionId,
    /// Counts appends: their streams, counters and keys come from it.
    nth: u64,
}

impl Many {
    fn new() -> Self {
        let mut state = State::new();
        let log_id = LogId::new([1; 32]);
        apply_committed(&mut state, Command::Genesis { log_id, time: TIME }).unwrap();
        for number in 0..STREAMS {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&spread(number).to_le_bytes());
            let name = NameHash::new(name);
            let (seal, time) = (None, TIME);
            apply_committed(&mut state, Command::CreateStream { name, seal, time }).unwrap();
        }
        let opened = apply_committed(&mut state, Command::OpenSession { time: TIME });
        let session = SessionId::new(opened.unwrap().slot().position);
        let nth = 0;
        Self {
            state,
            session,
            nth,
        }
    }

    /// With as many keys as are ever known, and so often more that the table of them grows no further.
    fn with_keys() -> Self {
        let mut many = Self::new();
        let counted = measure(|| {
            for _ in 0..6 * IDEMPOTENCY_KEYS_MAX {
                let command = many.keyed();
                many.apply(command).unwrap();
            }
        });
        assert_eq!(many.state.keys_count(), IDEMPOTENCY_KEYS_MAX);
        let bytes = counted.bytes_current;
        assert!((10 << 20..14 << 20).contains(&bytes), "{counted:?}");
        many
    }

    /// An append to a stream that was not appended to for the longest.
    fn append(&mut self) -> Command {
        self.nth += 1;
        let first_counter = u32::try_from(self.nth).unwrap();
        Command::Append {
            stream: stream_at(1 + self.nth * 7_919 % STREAMS),
            expected: ExpectedVersion::Any,
            count: 1,
            idempotency: None,
            seal: Some(Sealing {
                session: self.session,
                first_counter,
            }),
            time: TIME,
        }
    }

    /// The same with a key that nobody has used.
    fn keyed(&mut self) -> Command {
        let mut command = self.append();
        if let Command::Append { idempotency, .. } = &mut command {
            *idempotency = Some(idempotency_of(self.nth));
        }
        command
    }

    fn apply(&mut self, command: Command) -> Result<Effect, Rejection> {
        apply_committed(&mut self.state, black_box(command))
    }

    fn decide(&mut self, act: RetentionAct) -> Result<Effect, Rejection> {
        let (seal, time) = (None, TIME);
        self.apply(Command::Retention { act, seal, time })
    }
}

/// Neighbours that lie far apart.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn stream_at(position: u64) -> StreamId {
    StreamId::new(Position::new(position))
}

fn idempotency_of(nth: u64) -> Idempotency {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread(nth).to_le_bytes());
    Idempotency {
        key: IdempotencyKeyHash::new(key),
        request: RequestHash::new([0; 16]),
    }
}

/// Counts what `command` allocates, time after time.
fn count(many: &mut Many, mut command: impl FnMut(&mut Many)) -> AllocationInfo {
    measure(|| {
        for _ in 0..COMMANDS {
            command(many);
        }
    })
}

fn demand_none(what: &str, many: &mut Many, command: impl FnMut(&mut Many)) {
    let counted = count(many, command);
    assert_eq!(counted.count_total, 0, "{what}: {counted:?}");
}

#[test]
fn appends_checkpoints_sessions_and_refusals_allocate_nothing() {
    let mut many = Many::new();
    for _ in 0..STREAMS {
        let command = many.append();
        many.apply(command).unwrap();
    }
    demand_none("append", &mut many, |many| {
        let command = many.append();
        many.apply(command).unwrap();
    });
    demand_none("refused append", &mut many, |many| {
        let mut command = many.append();
        if let Command::Append { expected, .. } = &mut command {
            *expected = ExpectedVersion::NoStream;
        }
        let refused = many.apply(command);
        assert!(matches!(refused, Err(Rejection::WrongVersion { .. })));
    });
    demand_none("existing stream", &mut many, |many| {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&spread(0).to_le_bytes());
        let name = NameHash::new(name);
        let (seal, time) = (None, TIME);
        let created = many.apply(Command::CreateStream { name, seal, time });
        assert!(created.is_err());
    });
    demand_none("checkpoint", &mut many, |many| {
        let size = many.state.next_position();
        many.apply(Command::Checkpoint { size, time: TIME })
            .unwrap();
    });
    demand_none("recovery", &mut many, |many| {
        many.apply(Command::Recovery { time: TIME }).unwrap();
    });
    demand_none("session", &mut many, |many| {
        many.apply(Command::OpenSession { time: TIME }).unwrap();
    });
    demand_none("digest", &mut many, |many| {
        black_box(many.state.digest());
    });
}

#[test]
fn appends_with_keys_and_their_retries_allocate_nothing() {
    let mut many = Many::with_keys();
    demand_none("append with a key", &mut many, |many| {
        let command = many.keyed();
        let effect = many.apply(command).unwrap();
        assert!(matches!(effect, Effect::Append(_)));
    });
    let retry = many.keyed();
    many.apply(retry).unwrap();
    demand_none("retry", &mut many, |many| {
        let effect = many.apply(retry).unwrap();
        assert!(matches!(effect, Effect::Duplicate(_)));
    });
    // So far behind that all keys are let go of.
    let far = u32::try_from(IDEMPOTENCY_POSITIONS_MAX).unwrap();
    let counted = measure(|| {
        let (seal, time) = (None, TIME);
        many.apply(Command::Other {
            count: far,
            stream: None,
            offset: None,
            seal,
            time,
        })
        .unwrap();
    });
    assert_eq!(counted.count_total, 0, "keys let go of: {counted:?}");
    assert_eq!(many.state.keys_count(), 0);
}

#[test]
fn acts_of_retention_allocate_only_for_what_is_known_more_of() {
    let mut many = Many::new();
    let stream = Scope::Stream(stream_at(1));
    let rule = |age_ns| Some(Retention { age_ns, records: 0 });
    // The purge of the stream reaches further than the tenant's, else it would not be kept beside it.
    for (scope, until) in [(Scope::Tenant, 2), (stream, 3)] {
        let rule = rule(0);
        many.decide(RetentionAct::Retain { scope, rule }).unwrap();
        let (until, newest) = (Position::new(until), TIME);
        let purge = RetentionAct::Purge {
            scope,
            until,
            newest,
        };
        many.decide(purge).unwrap();
    }
    demand_none("another rule", &mut many, |many| {
        let rule = rule(many.state.next_position().get() % 2);
        let scope = stream;
        many.decide(RetentionAct::Retain { scope, rule }).unwrap();
    });
    let none = RetentionAct::Retain {
        scope: stream,
        rule: rule(0),
    };
    many.decide(none).unwrap();
    demand_none("a purge that goes on", &mut many, |many| {
        let until = Position::new(many.state.purged(stream).get() + 1);
        many.decide(RetentionAct::Purge {
            scope: stream,
            until,
            newest: TIME,
        })
        .unwrap();
    });
    let hold = RetentionAct::Hold { scope: stream };
    let holds = u64::from(u16::MAX);
    let counted = measure(|| {
        for _ in 0..holds {
            many.decide(hold).unwrap();
        }
    });
    // The ordered map puts at least five into a node.
    let allocated = counted.count_total;
    assert!(
        allocated > 0 && allocated < holds / 5 + holds / 25,
        "{counted:?}"
    );
    demand_none("refused purge", &mut many, |many| {
        let refused = many.decide(RetentionAct::Purge {
            scope: stream,
            until: many.state.next_position(),
            newest: TIME,
        });
        assert!(matches!(refused, Err(Rejection::Held { .. })));
    });
    let put = many.state.holds().map(|(hold, _)| hold);
    let mut put = put.collect::<Vec<HoldId>>().into_iter();
    demand_none("release", &mut many, |many| {
        let hold = put.next().unwrap();
        many.decide(RetentionAct::Release { hold }).unwrap();
    });
}

#[test]
fn rotations_and_completions_allocate_nothing_and_shreds_only_for_what_is_known_more_of() {
    let mut many = Many::new();
    let (seal, time) = (None, TIME);
    demand_none("rotation", &mut many, |many| {
        let generation = many.state.generation().next().unwrap();
        many.apply(Command::Rotate {
            generation,
            seal,
            time,
        })
        .unwrap();
    });
    let erase = |many: &mut Many, act| many.apply(Command::Erasure { act, seal, time });
    let counted = measure(|| {
        for position in 1..=COMMANDS {
            let scope = Scope::Stream(stream_at(position));
            erase(&mut many, ErasureAct::Shred { scope }).unwrap();
        }
    });
    // Two ordered maps, as for holds, and how many it takes to lead to them.
    let allocated = counted.count_total;
    assert!(allocated > 0 && allocated < COMMANDS, "{counted:?}");
    demand_none("refused shred", &mut many, |many| {
        let scope = Scope::Stream(stream_at(1));
        let refused = erase(many, ErasureAct::Shred { scope });
        assert!(matches!(refused, Err(Rejection::ShredPending { .. })));
    });
    let pending = many.state.pending_shreds().map(|(shred, _)| shred);
    let mut pending = pending.collect::<Vec<_>>().into_iter();
    demand_none("completion", &mut many, |many| {
        let shred = pending.next().unwrap();
        erase(many, ErasureAct::Complete { shred }).unwrap();
    });
}

#[test]
fn a_frame_is_replayed_without_an_allocation() {
    let mut written = Many::with_keys();
    let mut read = State::from_snapshot(&written.state.to_snapshot().unwrap()).unwrap();
    let mut frames = Vec::new();
    for nth in 0..COMMANDS {
        let command = if nth % 2 == 0 {
            written.keyed()
        } else {
            written.append()
        };
        let Command::Append { idempotency, .. } = command else {
            panic!("it is an append");
        };
        let slot = *written.apply(command).unwrap().slot();
        frames.push(ReplayedFrame {
            keyed: idempotency.map(|idempotency| KeyedAppend {
                idempotency,
                count: slot.count,
            }),
            ..ReplayedFrame::new(RecordKind::Event, slot)
        });
    }
    // The map of keys was made for those that it holds: it grows once more.
    let (first, others) = frames.split_at(frames.len() / 2);
    for frame in first {
        replay(&mut read, frame).unwrap();
    }
    let counted = measure(|| {
        for frame in others {
            replay(&mut read, black_box(frame)).unwrap();
        }
    });
    assert_eq!(read.digest(), written.state.digest());
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn the_count_sees_a_copy_of_the_state_and_a_vector_for_each_command() {
    let mut many = Many::new();
    let counted = measure(|| drop(black_box(many.state.clone())));
    // Two maps with an entry for each stream, of 40 and of 16 bytes.
    assert!(
        counted.count_total >= 2 && counted.bytes_total > STREAMS * 56,
        "{counted:?}"
    );
    let counted = count(&mut many, |many| {
        let command = black_box(vec![many.append()]);
        many.apply(command[0]).unwrap();
    });
    assert!(counted.count_total >= COMMANDS, "{counted:?}");
}
