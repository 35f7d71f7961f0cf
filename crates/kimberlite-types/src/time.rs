//! Time as the log stores it.

use core::fmt;

/// UTC Unix time in nanoseconds: the writer's claim, which never goes back within a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp from nanoseconds since the Unix epoch.
    pub const fn from_nanoseconds(value: u64) -> Self {
        Self(value)
    }

    /// Returns the nanoseconds since the Unix epoch.
    pub const fn as_nanoseconds(self) -> u64 {
        self.0
    }

    /// Returns the nanoseconds since `earlier`; 0 when that is later.
    pub const fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    /// Seconds and nanoseconds since the Unix epoch, as in `1700000000.000000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}
