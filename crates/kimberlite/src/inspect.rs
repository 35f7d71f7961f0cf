//! What a tenant consists of, for people who look at it from outside. Keys are told by id, never by
//! their bytes.

use kimberlite_storage::{FrameHeader, SegmentSummary};
use kimberlite_types::{Position, SessionId};

use crate::cache::{CacheStats, Caches, as_count};
use crate::error::Error;
use crate::tenant::Tenant;

/// The parts of a tenant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Which log it is, in hexadecimal.
    pub log_id: String,
    /// The name of the log in checkpoints.
    pub origin: String,
    /// The segments, in order.
    pub segments: Vec<SegmentSummary>,
    /// The data keys, oldest first.
    pub keys: Vec<KeySummary>,
    /// The key sessions that were opened, by the positions of their records.
    pub sessions: Vec<SessionId>,
    /// The sizes of the checkpoints.
    pub checkpoints: Vec<u64>,
}

/// A data key, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// The epoch of the key that it is wrapped with.
    pub epoch: u32,
}

/// Sizes of a tenant, and what its caches were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records, administrative ones too.
    pub records: u64,
    /// Events.
    pub events: u64,
    /// Streams.
    pub streams: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of segments that are used.
    pub used_bytes: u64,
    /// Bytes of segments on disk.
    pub file_bytes: u64,
    /// Bytes of memory that the index from positions to segments takes now: that of a segment is
    /// there once the segment was written or read.
    pub index_bytes: u64,
    /// Bytes of memory that the index from streams to positions takes.
    pub stream_index_bytes: u64,
    /// The cache of ids of streams by their names: an append asks it, and a read of a stream.
    pub stream_ids: CacheStats,
    /// The cache of names of streams by their ids, which are decrypted.
    pub stream_names: CacheStats,
    /// The cache of ciphers of key sessions, each derived from its data key.
    pub session_ciphers: CacheStats,
}

impl Tenant {
    /// Lists segments, keys, sessions and checkpoints.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a directory cannot be read.
    pub fn inspect(&self) -> Result<Inspection, Error> {
        let inner = self.inner();
        let disk = inner.database.options.disk.as_ref();
        let keys = inner.keys.keyring.entries.iter().map(|entry| KeySummary {
            id: entry.key_id.to_string(),
            version: entry.version.get(),
            epoch: entry.epoch,
        });
        Ok(Inspection {
            log_id: inner.reader.log_id().to_string(),
            origin: inner.checkpoints.origin().to_owned(),
            segments: inner.reader.segments(disk)?,
            keys: keys.collect(),
            sessions: inner.catalog().sessions.clone(),
            checkpoints: inner
                .checkpoints
                .sizes()?
                .into_iter()
                .map(Position::get)
                .collect(),
        })
    }

    /// Returns the header of the frame that holds `position`, and the byte of its segment at which
    /// it begins.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it cannot be read.
    pub fn frame(&self, position: Position) -> Result<Option<(u64, FrameHeader)>, Error> {
        let frame = self.inner().reader.frame(position)?;
        Ok(frame.map(|frame| (frame.at(), *frame.header())))
    }

    /// Counts what is there; of a damaged log, opened for reading only, what can be read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a directory cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let inner = self.inner();
        let segments = inner
            .reader
            .segments(inner.database.options.disk.as_ref())?;
        let (stream_ids, stream_names, session_ciphers) = {
            let caches = inner.caches();
            let Caches {
                stream_ids,
                stream_names,
                ciphers,
                session: _,
            } = &*caches;
            (stream_ids.stats(), stream_names.stats(), ciphers.stats())
        };
        let catalog = inner.catalog();
        let streams = catalog.index.streams();
        Ok(Stats {
            records: inner.reader.end().get(),
            streams: as_count(streams.len()),
            events: streams.map(|(_, events)| events).sum(),
            segments: as_count(segments.len()),
            used_bytes: segments.iter().map(|segment| segment.used_bytes).sum(),
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            index_bytes: as_count(inner.reader.index_bytes()),
            stream_index_bytes: as_count(catalog.index.memory_bytes()),
            stream_ids,
            stream_names,
            session_ciphers,
        })
    }
}
