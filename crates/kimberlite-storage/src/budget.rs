//! What all logs of a process share: handles and mappings of closed segments, and memory for tails.
//!
//! A closed segment that was opened to be read holds a file handle, and a mapping where those are used.
//! When more are open than the budget allows, one that was not read lately is let go of: the view of its
//! log gets a segment that nobody has opened in its place. Who reads the old one at that moment keeps it
//! until he is done.
//!
//! "Lately" is a bit that each read but the first sets and the hand of a clock clears: a segment goes when
//! the hand finds it unread since the last round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kimberlite_types::Position;

use crate::reader::Shared;
use crate::segment::ClosedSegment;

/// Bounds of what the logs that are opened with it hold together.
#[derive(Debug)]
pub struct Budget {
    segments_max: usize,
    tail_bytes_max: u64,
    tail_bytes: AtomicU64,
    open: Mutex<VecDeque<OpenSegment>>,
}

/// A closed segment that is open.
#[derive(Debug)]
struct OpenSegment {
    log: Weak<Shared>,
    segment: Weak<ClosedSegment>,
    base: Position,
}

impl Budget {
    /// Makes a budget of so many open closed segments, at least one, and of so many bytes of tails.
    pub fn new(segments_max: usize, tail_bytes_max: u64) -> Self {
        Self {
            segments_max: segments_max.max(1),
            tail_bytes_max,
            tail_bytes: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// Returns how many closed segments are open in all logs.
    pub fn open_segments(&self) -> usize {
        let is_open = |entry: &&OpenSegment| entry.segment.strong_count() > 0;
        self.entries().iter().filter(is_open).count()
    }

    /// Returns how many bytes the tails of all logs take.
    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes.load(Ordering::Relaxed)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, VecDeque<OpenSegment>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a segment that was opened, and lets go of others while there are too many. Nobody calls
    /// it who holds the view of a log.
    pub(crate) fn opened(&self, log: &Arc<Shared>, segment: &Arc<ClosedSegment>) {
        if segment.is_counted() {
            return;
        }
        let mut entries = self.entries();
        if !segment.count() {
            return;
        }
        // The read that opened it does not count: who goes through a log once keeps nothing open.
        segment.take_read();
        entries.push_back(OpenSegment {
            log: Arc::downgrade(log),
            segment: Arc::downgrade(segment),
            base: segment.extent.base,
        });
        // Those of logs that were closed, and those that a purge replaced, go when the hand meets them. Two
        // rounds: in the first every one may have been read since the hand was there.
        let mut steps = 2 * entries.len();
        while entries.len() > self.segments_max && steps > 0 {
            steps -= 1;
            let Some(oldest) = entries.pop_front() else {
                break;
            };
            if !oldest.let_go(segment) {
                entries.push_back(oldest);
            }
        }
    }

    /// Counts bytes that came to a tail; whether all tails together are too large now.
    pub(crate) fn tail_grew(&self, bytes: u64) -> bool {
        let before = self.tail_bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) > self.tail_bytes_max
    }

    /// Counts bytes that left a tail; whether all tails together are too large still.
    pub(crate) fn tail_shrank(&self, bytes: u64) -> bool {
        let before = self.tail_bytes.fetch_sub(bytes, Ordering::Relaxed);
        before.saturating_sub(bytes) > self.tail_bytes_max
    }

    /// Whether logs that are written want the memory that the tails of quiet ones take.
    pub(crate) fn is_scarce(&self) -> bool {
        self.tail_bytes() > self.tail_bytes_max / 2
    }
}

impl OpenSegment {
    /// Whether it is gone now: it was not read lately, or nobody has it any more. Not so the `newest`,
    /// which is about to be read.
    fn let_go(&self, newest: &Arc<ClosedSegment>) -> bool {
        let (Some(log), Some(segment)) = (self.log.upgrade(), self.segment.upgrade()) else {
            return true;
        };
        if Arc::ptr_eq(&segment, newest) || segment.take_read() {
            return false;
        }
        log.close_segment(self.base, &segment);
        true
    }
}

/// Half of the file handles that this process may have, at most 16,384: the rest is for active segments,
/// for what is written, and for the application.
pub(crate) fn open_segments_default(handles_max: Option<u64>) -> usize {
    const SEGMENTS_MAX: u64 = 16_384;
    let half = handles_max.map_or(SEGMENTS_MAX, |handles| handles / 2);
    usize::try_from(half.clamp(1, SEGMENTS_MAX)).expect("a small number")
}

impl Default for Budget {
    /// Half of the file handles that the process may have, at most 16,384; 256 MiB of tails.
    fn default() -> Self {
        let handles = kimberlite_disk::handles_max();
        Self::new(open_segments_default(handles), 256 << 20)
    }
}
