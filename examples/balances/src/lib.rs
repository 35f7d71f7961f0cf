//! How much each account has, and which accounts have the most.

use kimberlite_projection::store::{Snapshot, StoreError, WriteTransaction};
use kimberlite_projection::{ApplyError, Batch, Projection, Table};

const BALANCES: Table<String, i64> = Table::new(1);
/// A secondary index: changed with what it is an index of.
const BY_BALANCE: Table<(i64, String), ()> = Table::new(2);

/// Takes in events `paid-in` and `paid-out`, whose stream is the account and whose data is a number of cents.
#[derive(Debug)]
pub struct Balances;

impl Projection for Balances {
    type View = BalancesView;

    fn name(&self) -> &'static str {
        "balances"
    }

    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, batch: &Batch<'_>, write: &mut WriteTransaction<'_>) -> Result<(), ApplyError> {
        for event in batch.events() {
            let sign = match event.payload() {
                Some(("paid-in", _)) => 1,
                Some(("paid-out", _)) => -1,
                _ => continue,
            };
            let cents = event
                .payload()
                .and_then(|(_, data)| str::from_utf8(data).ok()?.parse::<i64>().ok());
            // What is no number is passed over: it stays in the log.
            let Some(cents) = cents else { continue };
            let account = event.stream;
            let before = BALANCES.find_in(write, account)?.unwrap_or_default();
            let after = before.saturating_add(cents.saturating_mul(sign));
            BY_BALANCE.remove(write, (before, account))?;
            BY_BALANCE.put(write, (after, account), ())?;
            BALANCES.put(write, account, after)?;
        }
        Ok(())
    }
}

/// The balances as they are up to some record of the log.
#[derive(Debug)]
pub struct BalancesView(Snapshot);

impl From<Snapshot> for BalancesView {
    fn from(snapshot: Snapshot) -> Self {
        Self(snapshot)
    }
}

impl BalancesView {
    /// How many cents an account has.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn of(&self, account: &str) -> Result<i64, StoreError> {
        Ok(BALANCES.find(&self.0, account)?.unwrap_or_default())
    }

    /// The accounts and what they have, those with the most first.
    pub fn richest(&self) -> impl Iterator<Item = Result<(String, i64), StoreError>> {
        let accounts = BY_BALANCE.range(&self.0, ..).rev();
        accounts.map(|found| found.map(|((cents, account), ())| (account, cents)))
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_projection::testkit::{TestLog, check};

    use super::*;

    #[test]
    fn money_comes_and_goes() {
        let log = TestLog::new()
            .event("ann", "paid-in", b"500")
            .event("bob", "paid-in", b"300")
            .event("ann", "paid-out", b"250")
            .event("bob", "paid-in", b"much")
            .purged("bob");
        let view = BalancesView::from(check(&Balances, &log));
        assert_eq!(view.of("ann").unwrap(), 250);
        let richest: Vec<_> = view.richest().map(|it| it.unwrap().0).collect();
        assert_eq!(richest, ["bob", "ann"]);
    }
}
