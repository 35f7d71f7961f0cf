//! How long payloads are kept: legal holds, rules, purges.
//!
//! Each act is a record of its own, durable before it is answered. A purge is one too, and only then
//! removes anything; what a crash leaves of it to do is done by the next purge.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use kimberlite_crypto::EnvelopeParts;
use kimberlite_kernel::{Rejection, Retention, RetentionAct, Scope, Slot};
use kimberlite_storage::{FrameHeader, PurgeOutcome, kept_aside};
use kimberlite_types::{HoldId, Position, StreamId, StreamName, Timestamp, limits};

use crate::engine::{Engine, Group};
use crate::error::{Error, Problem};
use crate::ordered::Ordered;
use crate::payload::{encode_act, split_hold};
use crate::read::RecordPlace;
use crate::stream::Stream;
use crate::tenant::{Tenant, TenantInner};

/// A bound of what a record without its text takes, with a key session before it.
const ACT_BYTES_MAX: u64 = 1024;

/// A legal hold in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// Its id: the position of the record that put it.
    pub id: HoldId,
    /// What it covers: a stream, or all of the tenant.
    pub stream: Option<StreamId>,
    /// When it was put.
    pub time: Timestamp,
    /// Why.
    pub reason: String,
}

/// What is purged, and how.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until something is purged with them"]
pub struct PurgeOptions {
    until: Position,
    stream: Option<String>,
    dry_run: bool,
}

impl PurgeOptions {
    /// Purges the events of the tenant before the position `until`.
    pub fn new(until: Position) -> Self {
        Self {
            until,
            stream: None,
            dry_run: false,
        }
    }

    /// Purges those of one stream alone.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// Only says what would be done.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What a purge did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// The position before which events are purged: a frame that reaches past the one asked for is left as
    /// a whole. An append is one frame, or several where it has more than 1,024 events or 4 MiB; under
    /// [`SyncPolicy::EveryRecord`](crate::SyncPolicy::EveryRecord) each event is one.
    pub until: Position,
    /// Where the record of the purge stands; none when as much was ordered before, so that only what
    /// was left of that was done, and none in a dry run.
    pub record: Option<Position>,
    /// What was removed, also for earlier purges that had not come to their end.
    pub outcome: PurgeOutcome,
    /// Files in which recoveries and repairs have kept what they took out of the log. They may hold
    /// payloads of what is purged, which a purge leaves there: remove them when nobody needs them.
    pub kept_aside: Vec<PathBuf>,
}

impl Tenant {
    /// Puts a legal hold on all streams: until it is [released](Self::release) nothing is purged. The
    /// reason, up to 4 KiB, is stored like an event.
    ///
    /// Waits for a purge that is under way; once it returns none removes anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when too many holds are in force,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the reason is too long.
    pub fn hold(&self, reason: &str) -> Result<HoldId, Error> {
        self.inner().hold(Scope::Tenant, reason)
    }

    /// Lifts a legal hold, for a reason that is stored likewise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when no such hold is in force.
    pub fn release(&self, hold: HoldId, reason: &str) -> Result<(), Error> {
        let act = RetentionAct::Release { hold };
        self.inner().decide_act(act, Some(reason)).map(drop)
    }

    /// Lists the legal holds in force, the oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`ErrorKind::WrongKey`](crate::ErrorKind::WrongKey) when the record of one does not open, and why
    /// the log cannot be read to its end where that is so.
    pub fn holds(&self) -> Result<Vec<Hold>, Error> {
        let inner = self.inner();
        if let Some(error) = inner.unreadable_end() {
            return Err(error);
        }
        let holds = inner.catalog().ordered.holds().clone();
        let read = |(id, scope)| inner.read_hold(id, scope);
        holds.into_iter().map(read).collect()
    }

    /// Sets how old events must be before they may be purged; streams with a rule of their own go by
    /// that. None takes the rule away.
    ///
    /// Ages are counted within the log, up to its last record.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) and others when the record cannot be written.
    pub fn retain(&self, rule: Option<Retention>) -> Result<(), Error> {
        let scope = Scope::Tenant;
        let act = RetentionAct::Retain { scope, rule };
        self.inner().decide_act(act, None).map(drop)
    }

    /// Removes the payloads of events, and frees their space. Their hashes stay, so that everything
    /// verifies as before; reading one says [`ErrorKind::Purged`](crate::ErrorKind::Purged).
    ///
    /// `progress` is told after each segment; it must neither close the database nor hold or purge. A
    /// purge that was cut short is completed by the next one, also by one that asks for no more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when a hold or a rule forbids it; the message
    /// says which. [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when what would be purged is not what
    /// was written.
    pub fn purge(
        &self,
        options: &PurgeOptions,
        progress: &mut dyn FnMut(&PurgeOutcome),
    ) -> Result<PurgeReport, Error> {
        self.inner().purge(options, progress)
    }
}

impl Stream {
    /// Puts a legal hold on this stream, as [`Tenant::hold`] does on all.
    ///
    /// # Errors
    ///
    /// As [`Tenant::hold`]; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the stream has no
    /// events yet.
    pub fn hold(&self, reason: &str) -> Result<HoldId, Error> {
        let inner = self.tenant();
        inner.hold(inner.existing_scope(self.name())?, reason)
    }

    /// Sets how old events of this stream must be before they may be purged, as [`Tenant::retain`] does
    /// for all that have no rule of their own.
    ///
    /// # Errors
    ///
    /// As [`Tenant::retain`]; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the stream has no
    /// events yet.
    pub fn retain(&self, rule: Option<Retention>) -> Result<(), Error> {
        let inner = self.tenant();
        let scope = inner.existing_scope(self.name())?;
        let act = RetentionAct::Retain { scope, rule };
        inner.decide_act(act, None).map(drop)
    }
}

/// Lets go, when it is dropped, of what was known of segments before a purge.
struct Forgetting<'a>(&'a TenantInner);

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.forget_opened();
        if let Some(snapshots) = &self.0.snapshots {
            snapshots.outdate();
        }
    }
}

impl TenantInner {
    /// Keeps a purge and a hold from each other.
    fn purging(&self) -> MutexGuard<'_, ()> {
        self.purging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn existing_scope(&self, name: &StreamName) -> Result<Scope, Error> {
        let stream = self.stream_id(name).ok_or(Problem::NoStream)?;
        Ok(Scope::Stream(stream))
    }

    fn hold(self: &Arc<Self>, scope: Scope, reason: &str) -> Result<HoldId, Error> {
        let _alone = self.purging();
        let slot = self.decide_act(RetentionAct::Hold { scope }, Some(reason))?;
        Ok(HoldId::new(slot.position))
    }

    fn read_hold(&self, id: HoldId, scope: Scope) -> Result<Hold, Error> {
        let position = id.position();
        let unreadable = || Problem::AdministrativeRecord {
            kind: "hold",
            position,
        };
        let stored = self.reader.record(position)?.ok_or_else(unreadable)?;
        let sealed = split_hold(stored.payload()).ok_or_else(unreadable)?;
        let sealed = stored.payload().slice_ref(sealed);
        let place = RecordPlace::new(stored.frame(), position);
        let envelope = self.open_payload(&place, sealed)?;
        let reason = std::str::from_utf8(&envelope.data).map_err(|_| unreadable())?;
        Ok(Hold {
            id,
            stream: match scope {
                Scope::Tenant => None,
                Scope::Stream(stream) => Some(stream),
            },
            time: stored.frame().time,
            reason: reason.to_owned(),
        })
    }

    /// Decides an act, and answers once that and all that it was decided on is durable.
    fn decide_act(self: &Arc<Self>, act: RetentionAct, text: Option<&str>) -> Result<Slot, Error> {
        let mut locked = self.writing()?;
        let decided = self.record_act(locked.engine()?, act, text);
        drop(locked);
        let decided = self.show_also_after(decided)?;
        self.show()?;
        self.notice();
        Ok(decided?)
    }

    fn record_act(
        &self,
        engine: &mut Engine,
        act: RetentionAct,
        text: Option<&str>,
    ) -> Result<Result<Slot, Rejection>, Error> {
        let bytes = text.map_or(0, str::len);
        let bytes_max = limits::REASON_BYTES_MAX;
        if bytes > bytes_max {
            let what = "a reason";
            return Err(Problem::TooLarge {
                what,
                bytes,
                bytes_max,
            }
            .into());
        }
        let reserved = u64::try_from(bytes).expect("a reason is short") + ACT_BYTES_MAX;
        engine.log.reserve(reserved)?;
        let mut group = Group::default();
        let decided = self.seal_act(engine, &mut group, act, text);
        // What the kernel applied before it rejected the rest is written all the same.
        self.commit(engine, group)?;
        engine.log.sync()?;
        decided
    }

    fn seal_act(
        &self,
        engine: &mut Engine,
        group: &mut Group,
        act: RetentionAct,
        text: Option<&str>,
    ) -> Result<Result<Slot, Rejection>, Error> {
        let before = encode_act(&act);
        let Some(text) = text else {
            return Ok(engine.decide_plain(group, act, &before));
        };
        let kind = act.kind();
        let envelope = EnvelopeParts {
            event_type: &kind.to_string(),
            metadata: &[],
            data: text.as_bytes(),
        };
        self.decide_sealed(engine, group, |engine, group, session| {
            let sealed = self.sealer.seal_apart(session, kind, &before, &envelope);
            sealed.map(|(frame, sealing)| engine.decide(group, act, frame, sealing))
        })
    }

    fn purge(
        self: &Arc<Self>,
        options: &PurgeOptions,
        progress: &mut dyn FnMut(&PurgeOutcome),
    ) -> Result<PurgeReport, Error> {
        let scope = match &options.stream {
            None => Scope::Tenant,
            Some(name) => self.existing_scope(&StreamName::new(name)?)?,
        };
        let _alone = self.purging();
        let mut locked = self.writing()?;
        let engine = locked.engine()?;
        engine.log.sync()?;
        self.show()?;
        let until = self.frame_border(options.until)?;
        let is_new = until > engine.state.purged(scope);
        let newest = match until.get().checked_sub(1).map(Position::new) {
            Some(last) => self.reader.frame(last)?.map(|frame| frame.header().time),
            None => None,
        };
        let newest = newest.unwrap_or_default();
        let act = RetentionAct::Purge {
            scope,
            until,
            newest,
        };
        let purger = engine.log.purger();
        if options.dry_run {
            let mut ordered = Ordered::of(&engine.state);
            if is_new {
                engine.state.check_purge(scope, until, newest)?;
                ordered.purge(scope, until);
            }
            drop(locked);
            let outcome = purger.plan(ordered.until(), &|header| ordered.includes(header))?;
            return Ok(PurgeReport {
                until,
                record: None,
                outcome,
                kept_aside: self.kept_payloads()?,
            });
        }
        let mut record = None;
        if is_new {
            record = Some(self.record_act(engine, act, None)??.position);
        }
        let ordered = Ordered::of(&engine.state);
        let choice = |header: &FrameHeader| ordered.includes(header);
        // The record of the purge is durable: from here on a crash leaves it to be completed.
        if purger.events_left(ordered.until(), &choice)? > 0 {
            engine.log.close_segment()?;
        }
        drop(locked);
        self.show()?;
        self.notice();
        // Also where it is cut short, by a caller's panic too: some of it is gone then.
        let forgetting = Forgetting(self);
        let outcome = purger.purge(ordered.until(), &choice, progress);
        drop(forgetting);
        Ok(PurgeReport {
            until,
            record,
            outcome: outcome?,
            kept_aside: self.kept_payloads()?,
        })
    }

    /// Lists the files that may hold payloads beside the segments.
    fn kept_payloads(&self) -> Result<Vec<PathBuf>, Error> {
        let dir = self.database.tenant_dir(&self.name);
        let kept = kept_aside(self.database.options.disk.as_ref(), &dir)?;
        let kept = kept.into_iter().filter(|kept| kept.may_hold_payloads);
        Ok(kept.map(|kept| kept.path).collect())
    }

    /// Lets go of the events that were opened, and of those that readers are opening now and read
    /// before this.
    fn forget_opened(&self) {
        self.purges.fetch_add(1, Ordering::AcqRel);
        self.database.opened.forget(self.holder);
    }

    /// Returns where the frame begins that holds `until`: a frame is purged as a whole or not at all.
    fn frame_border(&self, until: Position) -> Result<Position, Error> {
        let frame = self.reader.frame(until)?;
        Ok(frame.map_or(until, |frame| frame.header().base_position))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use kimberlite_testkit::SimulatedDisk;

    use super::*;
    use crate::{Database, Event, ExpectedVersion};

    #[test]
    fn a_panic_in_the_middle_of_a_purge_keeps_nothing_that_was_opened() {
        let disk = SimulatedDisk::new(2);
        let db = Database::builder("/db")
            .disk(Arc::new(disk))
            .background(false);
        let db = db.opened_bytes_max(100_000).open().unwrap();
        let tenant = db.tenant("clinic.seal").unwrap();
        let stream = tenant.stream("s").unwrap();
        let receipt = stream.append(ExpectedVersion::Any, &[Event::new("t", "1")]);
        let position = receipt.unwrap().first_position();
        tenant.read_position(position).unwrap().unwrap();
        let options = PurgeOptions::new(tenant.durable_position());
        let purge = || tenant.purge(&options, &mut |_| panic!("in the middle"));
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(purge));
        assert!(came.is_err());
        let read = tenant.read_position(position).unwrap_err();
        assert_eq!(read.kind(), crate::ErrorKind::Purged);
        // What was cut off earlier is named whatever the tenant is called.
        let disk = db.shared().options.disk.as_ref();
        let log = db.shared().tenant_dir(tenant.name()).join("log");
        disk.create_dir_all(&log.join("discarded")).unwrap();
        let kept = log.join("discarded/1.tail");
        for path in [&kept, &log.join("2.seal.lost")] {
            let access = kimberlite_disk::Access::Private;
            disk.write_new_atomic(path, b"x", access).unwrap();
        }
        let report = tenant.purge(&options.clone().dry_run(true), &mut |_| ());
        assert_eq!(report.unwrap().kept_aside, [kept]);
    }

    #[test]
    fn a_hold_waits_for_a_purge_that_runs_and_a_purge_keeps_it_waiting() {
        let disk = SimulatedDisk::new(1);
        let db = Database::builder("/db")
            .disk(Arc::new(disk))
            .background(false);
        let db = db.open().unwrap();
        let tenant = db.tenant("t").unwrap();
        let stream = tenant.stream("s").unwrap();
        stream
            .append(ExpectedVersion::Any, &[Event::new("t", "1")])
            .unwrap();
        let mut was_held = false;
        let options = PurgeOptions::new(tenant.durable_position());
        tenant
            .purge(&options, &mut |_| {
                was_held = tenant.inner().purging.try_lock().is_err();
            })
            .unwrap();
        assert!(was_held);

        let running = tenant.inner().purging();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let hold = tenant.hold("case 17").map(drop);
                sender.send(hold).unwrap();
            });
            // Nothing can come for as long as it is waited for; without the wait it comes at once.
            let early = receiver.recv_timeout(Duration::from_millis(100));
            assert!(early.is_err(), "the hold came in the middle of a purge");
            drop(running);
            receiver.recv().unwrap().unwrap();
        });
        assert_eq!(tenant.holds().unwrap().len(), 1);
    }
}
