//! The one loop of a writer: seal → order → apply → write → publish.
//!
//! A caller seals its events on its own thread where stream and key session are known already (see
//! [`seal`]). Then, under the tenant's commit lock, [`Engine`] asks the kernel where each frame
//! goes, and hands the frames to the log as one commit group. Without the lock the caller then waits
//! until that is durable: it leads a sync or shares one, while others write.
//!
//! Invariants:
//!
//! * The kernel's state is ahead of the log only under the lock; whatever it applied is in the group
//!   that is written before the lock is let go. If that write fails the log is poisoned, and with it the
//!   engine: nothing is decided from the state again.
//! * Space is reserved before the kernel decides, so a full disk changes nothing.
//! * Every answer, a refusal too, waits until everything that it was decided on is durable, as far as
//!   the sync policy promises.

pub(crate) mod seal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kimberlite_kernel::{
    Command, Effect, ExpectedVersion, Rejection, ReplayedFrame, RetentionAct, Sealing, Slot, State,
    apply_committed,
};
use kimberlite_storage::{
    Durability, FrameBuilder, FramePlacement, LogWriter, Settled, UnplacedFrame,
};
use kimberlite_types::{
    Idempotency, NameHash, Offset, Position, RecordFlags, RecordKind, StreamId, Timestamp,
};

use crate::environment::Clock;
use crate::error::{Error, Problem};
use crate::options::SyncPolicy;
use seal::ActiveSession;

/// The commit lock, with the engine behind it.
#[derive(Debug)]
pub(crate) struct CommitLock(Mutex<Writing>);

/// Whether a tenant can be written to.
#[derive(Debug)]
enum Writing {
    Open(Box<Engine>),
    Closed,
    /// A panic left the kernel's state and the log apart.
    GivenUp,
}

/// The commit lock, held. Whoever is to be told of what was done under it is told once it is let go:
/// a waker may append again.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    writing: MutexGuard<'a, Writing>,
    /// Behind the guard, to be dropped after it.
    settled: Settled,
}

impl CommitLock {
    pub(crate) fn new(engine: Engine) -> Self {
        Self(Mutex::new(Writing::Open(Box::new(engine))))
    }

    /// Waits for whoever commits. After a panic under the lock the engine is given up: nothing is
    /// decided from it again.
    pub(crate) fn lock(&self) -> Locked<'_> {
        let writing = self.0.lock().unwrap_or_else(|poisoned| {
            let mut writing = PoisonError::into_inner(poisoned);
            if matches!(*writing, Writing::Open(_)) {
                *writing = Writing::GivenUp;
            }
            writing
        });
        let settled = Settled::default();
        Locked { writing, settled }
    }
}

impl Locked<'_> {
    pub(crate) fn engine(&mut self) -> Result<&mut Engine, Error> {
        match &mut *self.writing {
            Writing::Open(engine) => Ok(engine),
            Writing::Closed => Err(Problem::Closed.into()),
            Writing::GivenUp => Err(Problem::GivenUp.into()),
        }
    }

    /// Takes the engine away, so that nobody appends any more; `None` when that was done before.
    pub(crate) fn close(&mut self) -> Result<Option<Box<Engine>>, Error> {
        match std::mem::replace(&mut *self.writing, Writing::Closed) {
            Writing::Open(engine) => Ok(Some(engine)),
            Writing::Closed => Ok(None),
            Writing::GivenUp => Err(Problem::GivenUp.into()),
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Writing::Open(engine) = &mut *self.writing {
            self.settled = engine.log.take_settled();
        }
    }
}

/// Decides and writes. Lives behind the tenant's commit lock.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) log: LogWriter,
    pub(crate) state: State,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sync_policy: SyncPolicy,
    /// The session that new frames are sealed with; none before the first append.
    pub(crate) session: Option<Arc<ActiveSession>>,
    /// Counts groups, so that a watcher can tell whether the log has fallen quiet.
    pub(crate) groups: u64,
}

/// Frames of one append, sealed but without a place.
#[derive(Debug)]
pub(crate) struct SealedEvents {
    pub(crate) frames: Vec<UnplacedFrame>,
    pub(crate) sealing: Option<Sealing>,
    pub(crate) idempotency: Option<Idempotency>,
}

/// A commit group in the making.
#[derive(Debug, Default)]
pub(crate) struct Group {
    frames: Vec<(UnplacedFrame, FramePlacement)>,
    /// What the frames will mean to readers.
    replayed: Vec<ReplayedFrame>,
}

impl Engine {
    /// Returns the time for the next record: now, or the last record's where the clock went back.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().max(self.state.last_time())
    }

    /// Asks the kernel for the place of events, and adds their frames unless they stand there already.
    pub(crate) fn append(
        &mut self,
        group: &mut Group,
        stream: StreamId,
        expected: ExpectedVersion,
        events: SealedEvents,
    ) -> Result<Effect, Rejection> {
        let count = events
            .frames
            .iter()
            .map(|frame| u32::from(frame.count()))
            .sum();
        let command = Command::Append {
            stream,
            expected,
            count,
            idempotency: events.idempotency,
            seal: events.sealing,
            time: self.now(),
        };
        let effect = apply_committed(&mut self.state, command)?;
        if let Effect::Duplicate(_) = effect {
            return Ok(effect);
        }
        let slot = effect.slot();
        let mut nth = 0;
        for frame in events.frames {
            let part = part_of(slot, nth, u32::from(frame.count()));
            nth += part.count;
            group.add(RecordKind::Event, frame, part, None);
        }
        Ok(effect)
    }

    /// Asks the kernel for the place of a new stream, and adds its record.
    pub(crate) fn create_stream(
        &mut self,
        group: &mut Group,
        name: NameHash,
        frame: UnplacedFrame,
        seal: Option<Sealing>,
    ) -> Result<StreamId, Rejection> {
        let command = Command::CreateStream {
            name,
            seal,
            time: self.now(),
        };
        let slot = *apply_committed(&mut self.state, command)?.slot();
        group.add(RecordKind::StreamCreated, frame, slot, Some(name));
        Ok(StreamId::new(slot.position))
    }

    /// Asks the kernel for the place of a record without a stream and without a seal.
    pub(crate) fn record(
        &mut self,
        group: &mut Group,
        kind: RecordKind,
        command: Command,
        payload: &[u8],
    ) -> Result<Slot, Rejection> {
        let slot = *apply_committed(&mut self.state, command)?.slot();
        let mut frame = FrameBuilder::new(kind, RecordFlags::PLAIN, 1, payload.len());
        frame.push(payload);
        group.add(kind, frame.build(), slot, None);
        Ok(slot)
    }

    /// Asks the kernel for the place of an act of retention, and adds its record.
    pub(crate) fn decide(
        &mut self,
        group: &mut Group,
        act: RetentionAct,
        frame: UnplacedFrame,
        seal: Option<Sealing>,
    ) -> Result<Slot, Rejection> {
        let time = self.now();
        let command = Command::Retention { act, seal, time };
        let slot = *apply_committed(&mut self.state, command)?.slot();
        group.add(act.kind(), frame, slot, None);
        let replayed = group.replayed.last_mut();
        replayed.expect("it was just added").retention = Some(act);
        Ok(slot)
    }

    /// As [`decide`](Self::decide), with a payload that is stored as it is.
    pub(crate) fn decide_plain(
        &mut self,
        group: &mut Group,
        act: RetentionAct,
        payload: &[u8],
    ) -> Result<Slot, Rejection> {
        let mut frame = FrameBuilder::new(act.kind(), RecordFlags::PLAIN, 1, payload.len());
        frame.push(payload);
        self.decide(group, act, frame.build(), None)
    }

    /// Writes a group; under [`SyncPolicy::EveryRecord`] all of it is synced, else nothing is yet.
    /// Returns what will become visible with it.
    pub(crate) fn write(&mut self, group: Group) -> Result<Vec<ReplayedFrame>, Error> {
        if group.frames.is_empty() {
            return Ok(Vec::new());
        }
        let durability = match self.sync_policy {
            SyncPolicy::EveryRecord => Durability::EachFrame,
            SyncPolicy::EveryBatch | SyncPolicy::GroupCommit { .. } | SyncPolicy::OnFlush => {
                Durability::Later
            }
        };
        self.log.commit(group.frames, durability)?;
        debug_assert_eq!(self.log.next_position(), self.state.next_position());
        self.groups += 1;
        Ok(group.replayed)
    }
}

impl Group {
    fn add(&mut self, kind: RecordKind, frame: UnplacedFrame, slot: Slot, name: Option<NameHash>) {
        let placement = FramePlacement {
            base_position: slot.position,
            stream: slot.stream,
            base_offset: slot.offset,
            time: slot.time,
            session: slot.session,
            first_counter: slot.first_counter,
        };
        self.frames.push((frame, placement));
        // Readers have no use for more.
        self.replayed.push(ReplayedFrame {
            name,
            ..ReplayedFrame::new(kind, slot)
        });
    }
}

/// Returns the slot of `count` records that begin `nth` into a larger one.
fn part_of(slot: &Slot, nth: u32, count: u32) -> Slot {
    debug_assert!(nth + count <= slot.count);
    let ahead = u64::from(nth);
    Slot {
        position: Position::new(slot.position.get() + ahead),
        count,
        offset: slot.offset.map(|offset| Offset::new(offset.get() + ahead)),
        first_counter: slot.first_counter.wrapping_add(nth),
        ..*slot
    }
}
