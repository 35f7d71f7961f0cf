//! What the database takes from outside: time and randomness. Nothing else in the library reads
//! either.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use kimberlite_storage::Entropy;
use kimberlite_types::Timestamp;

use crate::error::{Error, Problem};

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// Returns the time now, UTC.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_nanoseconds(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The operating system's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        getrandom::fill(bytes).is_ok()
    }
}

/// Draws random bytes.
pub(crate) fn random<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    if entropy.fill(&mut bytes) {
        Ok(bytes)
    } else {
        Err(Problem::Entropy.into())
    }
}
