//! Reading closed segments again, slowly, to find what rotted since they were written.

use std::time::Duration;

use kimberlite_storage::{ScrubProgress, closed_segments, scrub_segment};
use kimberlite_types::Position;

use crate::error::Error;
use crate::tenant::Tenant;
use crate::verify::Finding;

/// How a tenant is scrubbed.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ScrubOptions {
    bytes_per_second: Option<u64>,
    from: Position,
}

/// What a scrub found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Segments that were read.
    pub segments: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
}

impl ScrubOptions {
    /// The defaults: all closed segments, as fast as they can be read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads no more than so many bytes a second, on average.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Leaves out the segments that end at or before a position. A scrub remembers nothing: whoever
    /// wants to go on keeps [`ScrubProgress::position`].
    #[must_use]
    pub fn from(mut self, position: Position) -> Self {
        self.from = position;
        self
    }
}

impl Tenant {
    /// Reads every closed segment again and recomputes its frames, digests and chain, and its seal
    /// where there is one. Any bit that turned is found, with segment, byte and position.
    ///
    /// Takes no lock that an append needs; up to one segment is in memory at a time. The active
    /// segment is left to [`Tenant::verify`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a file cannot be read. Damage is in the report.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        progress: &mut dyn FnMut(ScrubProgress),
    ) -> Result<ScrubReport, Error> {
        self.scrub_with(options, progress, &mut std::thread::sleep)
    }

    fn scrub_with(
        &self,
        options: &ScrubOptions,
        progress: &mut dyn FnMut(ScrubProgress),
        wait: &mut dyn FnMut(Duration),
    ) -> Result<ScrubReport, Error> {
        let inner = self.inner();
        let database = &inner.database.options;
        let disk = database.disk.as_ref();
        let mut report = ScrubReport::default();
        let mut pace = Pace {
            bytes_per_second: options.bytes_per_second,
            begun: database.clock.now().as_nanoseconds(),
            bytes: 0,
        };
        let segments = closed_segments(&inner.reader).into_iter();
        for segment in segments.filter(|segment| segment.end() > options.from) {
            let damage = scrub_segment(&inner.reader, disk, &segment, &mut |bytes| {
                pace.bytes += bytes;
                let now = database.clock.now().as_nanoseconds();
                if let Some(early) = pace.early(now) {
                    wait(early);
                }
            })?;
            report.findings.extend(damage.iter().map(Finding::of));
            report.segments += 1;
            report.bytes = pace.bytes;
            progress(ScrubProgress {
                position: segment.end(),
                bytes: pace.bytes,
            });
        }
        Ok(report)
    }
}

/// Keeps reading below a rate.
struct Pace {
    bytes_per_second: Option<u64>,
    /// Nanoseconds.
    begun: u64,
    bytes: u64,
}

impl Pace {
    /// Returns how long it is until so many bytes may have been read.
    fn early(&self, now: u64) -> Option<Duration> {
        let rate = u128::from(self.bytes_per_second?);
        let due = u128::from(self.bytes) * 1_000_000_000 / rate;
        let past = u128::from(now.saturating_sub(self.begun));
        let early = due.checked_sub(past).filter(|&early| early > 0)?;
        Some(Duration::from_nanos(
            u64::try_from(early).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use kimberlite_kernel::ExpectedVersion;
    use kimberlite_testkit::SimulatedDisk;
    use kimberlite_types::Timestamp;

    use super::*;
    use crate::{Clock, Database, Event};

    #[derive(Debug)]
    struct StillClock(AtomicU64);

    impl Clock for StillClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_nanoseconds(self.0.load(Ordering::Relaxed))
        }
    }

    /// A database with two closed segments of 256 KiB and 1 MiB.
    fn database(disk: &SimulatedDisk, clock: Arc<StillClock>) -> Database {
        let builder = Database::builder("/db").disk(Arc::new(disk.clone()));
        let db = builder.clock(clock).background(false).open().unwrap();
        let stream = db.tenant("t").unwrap().stream("s").unwrap();
        for bytes in [200_000, 1_000_000, 200_000] {
            let event = Event::new("t", "x".repeat(bytes));
            stream.append(ExpectedVersion::Any, &[event]).unwrap();
        }
        drop(stream);
        db
    }

    #[test]
    fn a_scrub_waits_until_its_rate_allows_the_next_piece() {
        let clock = Arc::new(StillClock(AtomicU64::new(1_700_000_000_000_000_000)));
        let disk = SimulatedDisk::new(1);
        let db = database(&disk, Arc::clone(&clock));
        let tenant = db.tenant("t").unwrap();
        let mut waited = Duration::ZERO;
        let mut waits = 0;
        let options = ScrubOptions::new().bytes_per_second(100_000);
        let mut wait = |time: Duration| {
            waited += time;
            waits += 1;
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap();
            clock.0.fetch_add(nanoseconds, Ordering::Relaxed);
        };
        let report = tenant.scrub_with(&options, &mut |_| {}, &mut wait).unwrap();
        let bytes = (256 << 10) + (1 << 20);
        assert_eq!((report.segments, report.bytes), (2, bytes));
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let allowed = Duration::from_nanos(bytes * 10_000);
        assert_eq!(waited, allowed);
        assert!(waits > 4, "it waits piece by piece");
    }

    #[test]
    fn every_flipped_byte_of_a_closed_segment_is_found_in_its_place() {
        let clock = Arc::new(StillClock(AtomicU64::new(1_700_000_000_000_000_000)));
        let disk = SimulatedDisk::new(1);
        let db = database(&disk, clock);
        let tenant = db.tenant("t").unwrap();
        let path = "/db/tenants/t/log/00000000000000000000.seg";
        let scrub = || tenant.scrub(&ScrubOptions::new(), &mut |_| {}).unwrap();
        for byte in (0..256 << 10).step_by(2039) {
            disk.flip(path, byte, 1 << (byte % 8));
            let report = scrub();
            let found = report.findings.first();
            let found = found.unwrap_or_else(|| panic!("byte {byte} was not noticed"));
            assert_eq!(found.segment.as_deref(), Some("00000000000000000000.seg"));
            assert!(found.byte.is_some_and(|at| at <= byte) && found.position.is_some());
            disk.flip(path, byte, 1 << (byte % 8));
        }
        assert!(scrub().findings.is_empty());
        let later = ScrubOptions::new().from(Position::new(1 << 40));
        assert_eq!(tenant.scrub(&later, &mut |_| {}).unwrap().segments, 0);
    }
}
