//! Turning events into stored payloads, on the thread of whoever appends them.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use kimberlite_crypto::{
    Commit, EnvelopeParts, NameKey, Place, RequestKey, SessionCipher, TAG_BYTES, ToSeal,
    commitment_bytes, name_hash, seal_overhead,
};
use kimberlite_kernel::Sealing;
use kimberlite_storage::{FrameBuilder, UnplacedFrame};
use kimberlite_types::{
    Idempotency, KeyedAppend, LogId, NameHash, RecordFlags, RecordKind, SessionId, StreamId,
    StreamName, limits,
};

use zeroize::Zeroizing;

use super::SealedEvents;
use crate::event::Event;
use crate::options::Encryption;
use crate::payload::STREAM_CREATED_TYPE;

/// Bytes of the salt before an unencrypted envelope.
pub(crate) const SALT_BYTES: usize = 16;

/// The key session that this writer opened.
#[derive(Debug)]
pub(crate) struct ActiveSession {
    pub(crate) id: SessionId,
    pub(crate) cipher: SessionCipher,
    next_counter: AtomicU64,
}

impl ActiveSession {
    pub(crate) fn new(id: SessionId, cipher: SessionCipher) -> Self {
        Self {
            id,
            cipher,
            next_counter: AtomicU64::new(0),
        }
    }

    /// Takes `count` counters that nobody else gets, whether or not they are used in the end; `None`
    /// when the session has not that many left.
    fn take_counters(&self, count: u64) -> Option<u32> {
        // Relaxed: the counters need to be distinct, nothing is ordered by them.
        let first = self.next_counter.fetch_add(count, Ordering::Relaxed);
        let end = first.checked_add(count)?;
        (end <= limits::SESSION_SEALINGS_MAX).then_some(())?;
        u32::try_from(first).ok()
    }
}

/// What of a frame's payloads is sealed.
#[derive(Clone, Copy)]
struct Target {
    stream: Option<StreamId>,
    /// Bytes of each payload that stay as they are.
    before: usize,
}

/// Events of one append to one stream.
#[derive(Clone, Copy)]
pub(crate) struct StreamEvents<'a> {
    pub(crate) stream: StreamId,
    pub(crate) events: &'a [Event],
    pub(crate) idempotency: Option<Idempotency>,
}

/// How payloads are stored.
pub(crate) struct Sealer {
    pub(crate) log_id: LogId,
    pub(crate) encryption: Encryption,
    pub(crate) name_key: NameKey,
    pub(crate) request_key: RequestKey,
    /// Salts of unencrypted payloads come from this secret of the process and a counter.
    pub(crate) salt_key: Zeroizing<[u8; 32]>,
    pub(crate) salts: AtomicU64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Whether payloads are sealed with a key session.
    pub(crate) fn needs_session(&self) -> bool {
        self.encryption != Encryption::Off
    }

    pub(crate) fn name_hash(&self, name: &StreamName) -> NameHash {
        name_hash(&self.name_key, name.as_str().as_bytes())
    }

    fn flags(&self) -> RecordFlags {
        match self.encryption {
            Encryption::On => RecordFlags::COMMITTED,
            Encryption::WithoutCommitment => RecordFlags::ENCRYPTED,
            Encryption::Off => RecordFlags::PLAIN,
        }
    }

    /// Returns the bytes that a payload takes beyond its envelope.
    fn overhead(&self) -> usize {
        self.commit().map_or(SALT_BYTES, seal_overhead)
    }

    /// Stores events in frames of at most `frame_records` records; `None` when `session` has not
    /// enough counters left.
    pub(crate) fn seal_events(
        &self,
        session: Option<&ActiveSession>,
        of: StreamEvents<'_>,
        frame_records: usize,
    ) -> Option<SealedEvents> {
        let StreamEvents {
            stream,
            events,
            idempotency,
        } = of;
        let mut keyed = idempotency.map(|idempotency| {
            let count =
                u32::try_from(events.len()).expect("the caller checks the number of events");
            KeyedAppend { idempotency, count }
        });
        let first_counter = self.take_counters(session, events.len())?;
        let session = session.filter(|_| self.needs_session());
        let sealing = session.map(|session| Sealing {
            session: session.id,
            first_counter,
        });
        let mut counter = first_counter;
        let mut frames = Vec::new();
        let mut rest = events;
        while !rest.is_empty() {
            let (count, bytes) = self.frame_extent(rest, frame_records);
            let (part, behind) = rest.split_at(count);
            let mut frame = FrameBuilder::new(RecordKind::Event, self.flags(), count, bytes);
            if let Some(keyed) = keyed.take() {
                frame = frame.keyed(&keyed);
            }
            for event in part {
                self.lay_out(&mut frame, &[], &event.envelope());
            }
            let target = Target {
                stream: Some(stream),
                before: 0,
            };
            self.seal_frame(&mut frame, session, target, counter);
            let frame = frame.build();
            counter = counter.wrapping_add(u32::from(frame.count()));
            frames.push(frame);
            rest = behind;
        }
        Some(SealedEvents {
            frames,
            sealing,
            idempotency,
        })
    }

    /// Stores the record of a new stream.
    pub(crate) fn seal_stream(
        &self,
        session: Option<&ActiveSession>,
        name: &StreamName,
    ) -> Option<(NameHash, UnplacedFrame, Option<Sealing>)> {
        let hash = self.name_hash(name);
        let envelope = EnvelopeParts {
            event_type: STREAM_CREATED_TYPE,
            metadata: &[],
            data: name.as_str().as_bytes(),
        };
        let kind = RecordKind::StreamCreated;
        let (frame, sealing) = self.seal_apart(session, kind, hash.as_bytes(), &envelope)?;
        Some((hash, frame, sealing))
    }

    /// Stores a record outside any stream: `before` as it is, then an envelope; `None` when `session`
    /// has not enough counters left.
    pub(crate) fn seal_apart(
        &self,
        session: Option<&ActiveSession>,
        kind: RecordKind,
        before: &[u8],
        envelope: &EnvelopeParts<'_>,
    ) -> Option<(UnplacedFrame, Option<Sealing>)> {
        let counter = self.take_counters(session, 1)?;
        let bytes = before.len() + envelope.encoded_len() + self.overhead();
        let mut frame = FrameBuilder::new(kind, self.flags(), 1, bytes);
        self.lay_out(&mut frame, before, envelope);
        let session = session.filter(|_| self.needs_session());
        let target = Target {
            stream: None,
            before: before.len(),
        };
        self.seal_frame(&mut frame, session, target, counter);
        let sealing = session.map(|session| Sealing {
            session: session.id,
            first_counter: counter,
        });
        Some((frame.build(), sealing))
    }

    fn take_counters(&self, session: Option<&ActiveSession>, count: usize) -> Option<u32> {
        if !self.needs_session() {
            return Some(u32::MAX);
        }
        let count = u64::try_from(count).ok()?;
        session
            .expect("a session is open before anything is sealed")
            .take_counters(count)
    }

    /// Returns how many of `events` go into one frame, and the bytes of their payloads.
    fn frame_extent(&self, events: &[Event], frame_records: usize) -> (usize, usize) {
        let mut bytes = 0;
        for (index, event) in events.iter().enumerate() {
            let payload = event.envelope().encoded_len() + self.overhead();
            let full =
                index == frame_records || bytes + payload > limits::FRAME_PAYLOAD_BYTES_TARGET;
            if index > 0 && full {
                return (index, bytes);
            }
            bytes += payload;
        }
        (events.len(), bytes)
    }

    /// Adds a record: `before` as it is, then an envelope with room for what seals it.
    fn lay_out(&self, frame: &mut FrameBuilder, before: &[u8], envelope: &EnvelopeParts<'_>) {
        let Ok(()) = frame.push_with(|buffer| {
            buffer.extend_from_slice(before);
            match self.commit() {
                None => {
                    buffer.extend_from_slice(&self.salt());
                    envelope.encode_into(buffer);
                }
                Some(commit) => {
                    buffer.resize(buffer.len() + commitment_bytes(commit), 0);
                    envelope.encode_into(buffer);
                    buffer.resize(buffer.len() + TAG_BYTES, 0);
                }
            }
            Ok::<(), Infallible>(())
        });
    }

    /// Seals the records of a frame that were laid out, of which the first gets `counter`.
    fn seal_frame(
        &self,
        frame: &mut FrameBuilder,
        session: Option<&ActiveSession>,
        target: Target,
        counter: u32,
    ) {
        let Some(commit) = self.commit() else {
            return;
        };
        let session = session.expect("a session is open before anything is sealed");
        let Target { stream, before } = target;
        let to_seal = |(nth, payload)| ToSeal {
            place: Place {
                log_id: self.log_id,
                stream,
                session: session.id,
                counter: counter.wrapping_add(nth),
            },
            payload,
        };
        let payloads = frame.payloads_mut().into_iter();
        let payloads = payloads.map(|payload| payload.get_mut(before..).unwrap_or_default());
        let mut payloads = (0..).zip(payloads).map(to_seal).collect::<Vec<_>>();
        session.cipher.seal_many(commit, &mut payloads);
    }

    /// Returns what sealing includes; `None` where nothing is sealed.
    fn commit(&self) -> Option<Commit> {
        match self.encryption {
            Encryption::On => Some(Commit::Included),
            Encryption::WithoutCommitment => Some(Commit::Omitted),
            Encryption::Off => None,
        }
    }

    /// Returns a salt that nobody can guess: the digest of an unencrypted payload, which outlives a
    /// purge, then tells nothing about it.
    fn salt(&self) -> [u8; SALT_BYTES] {
        let count = self.salts.fetch_add(1, Ordering::Relaxed);
        let mut message = [0; 40];
        let (secret, number) = message.split_at_mut(32);
        secret.copy_from_slice(self.salt_key.as_slice());
        number.copy_from_slice(&count.to_le_bytes());
        let hash = kimberlite_crypto::internal_hash(&message);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}
