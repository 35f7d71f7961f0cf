//! The obvious model: it keeps every record, and looks everything up by walking over them.

use std::format;
use std::string::String;
use std::vec::Vec;

use kimberlite_types::limits::{APPEND_EVENTS_MAX, SESSION_SEALINGS_MAX, TIME_JUMP_NS_MAX};
use kimberlite_types::{
    HoldId, Idempotency, LogId, NameHash, Offset, Position, SessionId, ShredId, StreamId, Timestamp,
};

use crate::idempotency::Bounds;
use crate::{
    COUNTER_NONE, Command, Effect, ErasureAct, ExpectedVersion, Generation, Limit, Rejection,
    Retention, RetentionAct, Scope, Sealing, Slot, State,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Genesis(LogId),
    Stream(NameHash),
    Session,
    Event(StreamId),
    Checkpoint(Position),
    Retention(RetentionAct),
    Erasure(ErasureAct),
    Rotation,
    Other,
}

/// All records, each with its time, and all appends with keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    records: Vec<(Record, Timestamp)>,
    keyed: Vec<(Idempotency, Slot)>,
    bounds: Bounds,
}

impl Model {
    pub(super) fn with_bounds(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    pub(super) fn apply(&mut self, command: &Command) -> Result<Effect, Rejection> {
        let (record, count, seal, time) = parts(command);
        if let Some(first) = self.repeated(command)? {
            return Ok(Effect::Duplicate(first));
        }
        if let Command::Genesis { .. } = command {
            if !self.records.is_empty() {
                return Err(Rejection::GenesisTwice);
            }
        } else if self.records.is_empty() {
            return Err(Rejection::NoGenesis);
        } else {
            self.check(command, count)?;
            self.check_time(time)?;
            if !matches!(command, Command::Other { .. }) {
                self.check_seal(seal, count)?;
            }
        }
        let mut slot = Slot {
            position: Position::new(self.records.len() as u64),
            count,
            stream: None,
            offset: None,
            session: seal.map(|seal| seal.session),
            first_counter: seal.map_or(COUNTER_NONE, |seal| seal.first_counter),
            time,
        };
        if let Record::Event(stream) = record {
            slot.stream = Some(stream);
            slot.offset = Some(Offset::new(self.events(stream)));
        }
        if let Command::Other { stream, offset, .. } = command {
            slot.stream = *stream;
            slot.offset = *offset;
        }
        if let Command::Append {
            idempotency: Some(idempotency),
            ..
        } = command
        {
            self.keyed.push((*idempotency, slot));
        }
        self.records.extend((0..count).map(|_| (record, time)));
        Ok(match record {
            Record::Event(_) => Effect::Append(slot),
            Record::Stream(_) => Effect::StreamCreated {
                stream: StreamId::new(slot.position),
                slot,
            },
            Record::Session => Effect::SessionOpened {
                session: SessionId::new(slot.position),
                slot,
            },
            _ => Effect::Recorded(slot),
        })
    }

    /// The append of which this is a retry.
    fn repeated(&self, command: &Command) -> Result<Option<Slot>, Rejection> {
        let Command::Append {
            count,
            idempotency: Some(idempotency),
            ..
        } = command
        else {
            return Ok(None);
        };
        if !(1..=APPEND_EVENTS_MAX).contains(&(*count as usize)) {
            return Ok(None);
        }
        let known = self.known();
        let first = known.iter().find(|(known, _)| known.key == idempotency.key);
        match first {
            None => Ok(None),
            Some((first, slot)) if first.request == idempotency.request => Ok(Some(*slot)),
            Some((_, slot)) => Err(Rejection::KeyReused {
                first: slot.position,
            }),
        }
    }

    /// The appends with keys that are known still, the oldest first.
    fn known(&self) -> Vec<(Idempotency, Slot)> {
        let newest = self.keyed.iter().rev().take(self.bounds.keys).rev();
        let records = self.records.len() as u64;
        let known =
            newest.filter(|(_, slot)| records - slot.position.get() <= self.bounds.positions);
        known.copied().collect()
    }

    fn check(&self, command: &Command, count: u32) -> Result<(), Rejection> {
        match *command {
            Command::CreateStream { name, .. } => match self.stream_of(&name) {
                Some(stream) => Err(Rejection::StreamExists { stream }),
                None => Ok(()),
            },
            Command::Append {
                stream, expected, ..
            } => self.check_append(stream, expected, count),
            Command::Checkpoint { size, .. } => self.check_checkpoint(size),
            Command::Retention { act, .. } => self.check_retention(act),
            Command::Erasure { act, .. } => self.check_erasure(act),
            Command::Rotate { generation, .. } => self.check_rotation(generation),
            Command::Other { count: 0, .. } => Err(Rejection::EmptyAppend),
            _ => Ok(()),
        }
    }

    fn check_append(
        &self,
        stream: StreamId,
        expected: ExpectedVersion,
        count: u32,
    ) -> Result<(), Rejection> {
        if count == 0 {
            return Err(Rejection::EmptyAppend);
        }
        if count as usize > APPEND_EVENTS_MAX {
            return Err(Rejection::LimitReached {
                what: Limit::AppendEvents,
                wanted: count.into(),
                maximum: APPEND_EVENTS_MAX as u64,
            });
        }
        let exists = self.streams().any(|(id, _)| id == stream);
        if !exists {
            return Err(Rejection::UnknownStream { stream });
        }
        let events = self.events(stream);
        let good = match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::NoStream => events == 0,
            ExpectedVersion::Exact(offset) => events > 0 && offset.get() == events - 1,
        };
        if good {
            return Ok(());
        }
        let actual = (events > 0).then(|| Offset::new(events - 1));
        Err(Rejection::WrongVersion { expected, actual })
    }

    fn check_checkpoint(&self, size: Position) -> Result<(), Rejection> {
        let records = Position::new(self.records.len() as u64);
        if size > records {
            return Err(Rejection::CheckpointAheadOfLog { size, records });
        }
        match self.checkpoint() {
            Some(last) if size < last => Err(Rejection::CheckpointBehind { size, last }),
            _ => Ok(()),
        }
    }

    fn check_retention(&self, act: RetentionAct) -> Result<(), Rejection> {
        let check_scope = |scope| match scope {
            Scope::Stream(stream) if !self.streams().any(|(id, _)| id == stream) => {
                Err(Rejection::UnknownStream { stream })
            }
            _ => Ok(()),
        };
        let (scope, until, newest) = match act {
            RetentionAct::Hold { scope } => {
                check_scope(scope)?;
                return self.check_hold(scope);
            }
            RetentionAct::Retain { scope, .. } => return check_scope(scope),
            RetentionAct::Release { hold } => {
                let in_force = self.holds().iter().any(|(id, _)| *id == hold);
                return in_force
                    .then_some(())
                    .ok_or(Rejection::UnknownHold { hold });
            }
            RetentionAct::Purge {
                scope,
                until,
                newest,
            } => (scope, until, newest),
        };
        check_scope(scope)?;
        let records = Position::new(self.records.len() as u64);
        if until > records {
            return Err(Rejection::PurgeAheadOfLog { until, records });
        }
        let last = self.purged(scope);
        if until <= last {
            return Err(Rejection::PurgeBehind { scope, until, last });
        }
        // Whether some event below `until`, if there were one, would be in both.
        let meets = |other: Scope| match (scope, other) {
            (Scope::Stream(a), Scope::Stream(b)) => a == b,
            (Scope::Tenant, Scope::Tenant) => true,
            (Scope::Stream(stream), _) | (_, Scope::Stream(stream)) => stream.position() < until,
        };
        for (hold, held) in self.holds() {
            if meets(held) {
                return Err(Rejection::Held { hold, held });
            }
        }
        let last_ns = self.last_time().as_nanoseconds();
        let has = Retention {
            age_ns: last_ns.saturating_sub(newest.as_nanoseconds()),
            records: records.get() - until.get(),
        };
        let mut rules = self.rules();
        if let Scope::Stream(_) = scope {
            let own = rules.iter().find(|(kept, _)| *kept == scope).copied();
            let tenant = rules
                .iter()
                .find(|(kept, _)| *kept == Scope::Tenant)
                .copied();
            rules = own.or(tenant).into_iter().collect();
        } else {
            rules.retain(|(kept, _)| meets(*kept));
        }
        for (kept, rule) in rules {
            if has.age_ns < rule.age_ns || has.records < rule.records {
                return Err(Rejection::Retained {
                    kept,
                    rule,
                    has,
                    until,
                });
            }
        }
        Ok(())
    }

    fn check_hold(&self, scope: Scope) -> Result<(), Rejection> {
        let mut pending = self.pending_shreds().into_iter();
        match pending.find(|(_, other)| overlap(*other, scope)) {
            Some((shred, scope)) => Err(Rejection::ShredPending { shred, scope }),
            None => Ok(()),
        }
    }

    fn check_erasure(&self, act: ErasureAct) -> Result<(), Rejection> {
        let scope = match act {
            ErasureAct::Complete { shred } => {
                let is_pending = self.pending_shreds().iter().any(|(id, _)| *id == shred);
                return is_pending
                    .then_some(())
                    .ok_or(Rejection::UnknownShred { shred });
            }
            ErasureAct::Shred { scope } => scope,
        };
        if let Scope::Stream(stream) = scope
            && !self.streams().any(|(id, _)| id == stream)
        {
            return Err(Rejection::UnknownStream { stream });
        }
        for (shred, other) in self.pending_shreds() {
            if other == scope || other == Scope::Tenant {
                return Err(Rejection::ShredPending {
                    shred,
                    scope: other,
                });
            }
        }
        for (hold, held) in self.holds() {
            if overlap(held, scope) {
                return Err(Rejection::Held { hold, held });
            }
        }
        Ok(())
    }

    fn check_rotation(&self, generation: Generation) -> Result<(), Rejection> {
        let next = self.generation().next().unwrap();
        if generation == next {
            return Ok(());
        }
        Err(Rejection::WrongGeneration { generation, next })
    }

    fn generation(&self) -> Generation {
        let rotations = self.records.iter();
        let rotations = rotations.filter(|(record, _)| *record == Record::Rotation);
        Generation::new(u32::try_from(rotations.count()).unwrap())
    }

    fn pending_shreds(&self) -> Vec<(ShredId, Scope)> {
        let mut pending = Vec::new();
        for (position, record) in self.numbered() {
            match record {
                Record::Erasure(ErasureAct::Shred { scope }) => {
                    pending.push((ShredId::new(position), scope));
                }
                Record::Erasure(ErasureAct::Complete { shred }) => {
                    pending.retain(|(id, _)| *id != shred);
                }
                _ => {}
            }
        }
        pending
    }

    fn erased(&self, wanted: Scope) -> Position {
        let shreds = self
            .numbered()
            .filter_map(|(position, record)| match record {
                Record::Erasure(ErasureAct::Shred { scope })
                    if scope == wanted || scope == Scope::Tenant =>
                {
                    Some(position)
                }
                _ => None,
            });
        shreds.max().unwrap_or_default()
    }

    fn acts(&self) -> impl DoubleEndedIterator<Item = (Position, RetentionAct)> {
        self.numbered()
            .filter_map(|(position, record)| match record {
                Record::Retention(act) => Some((position, act)),
                _ => None,
            })
    }

    fn holds(&self) -> Vec<(HoldId, Scope)> {
        let mut holds = Vec::new();
        for (position, act) in self.acts() {
            match act {
                RetentionAct::Hold { scope } => holds.push((HoldId::new(position), scope)),
                RetentionAct::Release { hold } => holds.retain(|(id, _)| *id != hold),
                _ => {}
            }
        }
        holds
    }

    fn rules(&self) -> Vec<(Scope, Retention)> {
        let mut rules = Vec::new();
        for (_, act) in self.acts() {
            if let RetentionAct::Retain { scope, rule } = act {
                rules.retain(|(kept, _)| *kept != scope);
                rules.extend(rule.map(|rule| (scope, rule)));
            }
        }
        rules.sort_unstable_by_key(|(scope, _)| *scope);
        rules
    }

    fn purged(&self, wanted: Scope) -> Position {
        let purges = self.acts().filter_map(|(_, act)| match act {
            RetentionAct::Purge { scope, until, .. }
                if scope == wanted || scope == Scope::Tenant =>
            {
                Some(until)
            }
            _ => None,
        });
        purges.max().unwrap_or_default()
    }

    fn check_time(&self, time: Timestamp) -> Result<(), Rejection> {
        let last = self.last_time();
        if time < last {
            Err(Rejection::TimeWentBack { last, time })
        } else if time.as_nanoseconds() - last.as_nanoseconds() > TIME_JUMP_NS_MAX {
            Err(Rejection::TimeJump { last, time })
        } else {
            Ok(())
        }
    }

    fn check_seal(&self, seal: Option<Sealing>, count: u32) -> Result<(), Rejection> {
        let Some(seal) = seal else { return Ok(()) };
        let current = self.session().ok_or(Rejection::NoSession)?;
        let session = seal.session;
        if session != current {
            return Err(Rejection::SessionEnded { session, current });
        }
        let wanted = u64::from(seal.first_counter) + u64::from(count);
        if wanted > SESSION_SEALINGS_MAX {
            return Err(Rejection::LimitReached {
                what: Limit::SessionSealings,
                wanted,
                maximum: SESSION_SEALINGS_MAX,
            });
        }
        Ok(())
    }

    fn numbered(&self) -> impl DoubleEndedIterator<Item = (Position, Record)> {
        (self.records.iter().enumerate()).map(|(i, (record, _))| (Position::new(i as u64), *record))
    }

    fn streams(&self) -> impl Iterator<Item = (StreamId, NameHash)> {
        self.numbered()
            .filter_map(|(position, record)| match record {
                Record::Stream(name) => Some((StreamId::new(position), name)),
                _ => None,
            })
    }

    fn stream_of(&self, name: &NameHash) -> Option<StreamId> {
        let mut streams = self.streams();
        streams.find(|(_, other)| other == name).map(|(id, _)| id)
    }

    fn events(&self, stream: StreamId) -> u64 {
        let is_event = |(record, _): &&(Record, Timestamp)| *record == Record::Event(stream);
        self.records.iter().filter(is_event).count() as u64
    }

    fn session(&self) -> Option<SessionId> {
        for (position, record) in self.numbered().rev() {
            match record {
                Record::Session => return Some(SessionId::new(position)),
                Record::Rotation | Record::Erasure(ErasureAct::Shred { .. }) => return None,
                _ => {}
            }
        }
        None
    }

    fn checkpoint(&self) -> Option<Position> {
        self.records
            .iter()
            .rev()
            .find_map(|(record, _)| match record {
                Record::Checkpoint(size) => Some(*size),
                _ => None,
            })
    }

    fn last_time(&self) -> Timestamp {
        self.records
            .last()
            .map_or(Timestamp::default(), |(_, time)| *time)
    }

    /// Everything that the state should hold, as one comparable text.
    pub(super) fn contents(&self) -> String {
        let streams: Vec<_> = self
            .streams()
            .map(|(id, name)| (id, name, self.events(id)))
            .collect();
        let log_id = self.records.first().map(|(record, _)| match record {
            Record::Genesis(log_id) => *log_id,
            other => panic!("a log begins with genesis, not {other:?}"),
        });
        let single = (
            self.records.len() as u64,
            self.last_time(),
            self.session(),
            self.checkpoint(),
        );
        let purged = (streams.iter())
            .map(|(id, ..)| self.purged(Scope::Stream(*id)))
            .collect::<Vec<_>>();
        let retention = (
            self.holds(),
            self.rules(),
            self.purged(Scope::Tenant),
            purged,
        );
        let erased = streams.iter().map(|(id, ..)| Scope::Stream(*id));
        let erased = [Scope::Tenant].into_iter().chain(erased);
        let erased = erased.map(|scope| self.erased(scope)).collect::<Vec<_>>();
        let erasure = (self.generation(), self.pending_shreds(), erased);
        let known = self.known();
        format!("{log_id:?} {single:?} {streams:?} {retention:?} {erasure:?} {known:?}")
    }
}

/// What a state holds, as [`Model::contents`] says it.
pub(super) fn contents(state: &State) -> String {
    let mut streams: Vec<_> = (state.names.iter())
        .map(|(name, id)| (*id, *name, state.stream(*id).unwrap().next_offset().get()))
        .collect();
    streams.sort_unstable();
    let single = (
        state.next_position().get(),
        state.last_time(),
        state.session(),
        state.last_checkpoint(),
    );
    let scopes = (streams.iter())
        .map(|(id, ..)| Scope::Stream(*id))
        .collect::<Vec<_>>();
    let rule = |scope: &Scope| Some((*scope, state.retention(*scope)?));
    let rules = [Scope::Tenant].iter().chain(&scopes).filter_map(rule);
    let purged = scopes.iter().map(|scope| state.purged(*scope));
    let retention = (
        state.holds().collect::<Vec<_>>(),
        rules.collect::<Vec<_>>(),
        state.purged(Scope::Tenant),
        purged.collect::<Vec<_>>(),
    );
    let erased = [Scope::Tenant].into_iter().chain(scopes.iter().copied());
    let erased = erased.map(|scope| state.erased(scope)).collect::<Vec<_>>();
    let pending = state.pending_shreds().collect::<Vec<_>>();
    let erasure = (state.generation(), pending, erased);
    let known = (state.window.in_order())
        .map(|(key, first)| {
            let (key, request) = (*key, first.request);
            (Idempotency { key, request }, first.slot())
        })
        .collect::<Vec<_>>();
    format!(
        "{:?} {single:?} {streams:?} {retention:?} {erasure:?} {known:?}",
        state.log_id().copied()
    )
}

/// Whether an event of one scope may be of the other.
fn overlap(one: Scope, other: Scope) -> bool {
    one == other || one == Scope::Tenant || other == Scope::Tenant
}

fn parts(command: &Command) -> (Record, u32, Option<Sealing>, Timestamp) {
    match *command {
        Command::Genesis { log_id, time } => (Record::Genesis(log_id), 1, None, time),
        Command::CreateStream { name, seal, time } => (Record::Stream(name), 1, seal, time),
        Command::OpenSession { time } => (Record::Session, 1, None, time),
        Command::Append {
            stream,
            count,
            seal,
            time,
            ..
        } => (Record::Event(stream), count, seal, time),
        Command::Checkpoint { size, time } => (Record::Checkpoint(size), 1, None, time),
        Command::Recovery { time } => (Record::Other, 1, None, time),
        Command::Retention { act, seal, time } => (Record::Retention(act), 1, seal, time),
        Command::Erasure { act, seal, time } => (Record::Erasure(act), 1, seal, time),
        Command::Rotate { seal, time, .. } => (Record::Rotation, 1, seal, time),
        Command::Other {
            count, seal, time, ..
        } => (Record::Other, count, seal, time),
    }
}
