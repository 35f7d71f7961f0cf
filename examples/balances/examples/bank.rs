//! A bank of two accounts: `cargo run --example bank`, in an empty folder.
#![expect(clippy::print_stdout, reason = "it is a program")]

use kimberlite::{Database, Event, ExpectedVersion};
use kimberlite_example_balances::Balances;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Database::open("./bank")?;
    let bank = db.tenant("bank")?;
    let balances = bank.project(Balances)?;

    let pay_in = |account: &str, cents: &'static str| {
        bank.stream(account)?
            .append(ExpectedVersion::Any, &[Event::new("paid-in", cents)])
    };
    let before = pay_in("ann", "500")?;
    let last = pay_in("bob", "800")?;
    balances.wait_for(last.last_position())?;
    for found in balances.view().richest() {
        let (account, cents) = found?;
        println!("{account} has {cents}");
    }

    // As of an earlier record, derived in memory.
    let then = bank.project_at(&Balances, before.last_position(), &mut |_| {})?;
    assert_eq!((then.of("ann")?, then.of("bob")?), (500, 0));
    drop(balances);
    db.close()?;
    Ok(())
}
