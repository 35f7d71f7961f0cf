//! One thread keeps many appends under way: they share syncs, and each future tells when its own
//! events are durable. The last part answers early and waits once, at the end.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example talks to a person, and shows what time it takes"
)]

use std::time::{Duration, Instant};

use kimberlite::{
    Ack, AppendOptions, Database, Event, ExpectedVersion, QueueLimit, SyncPolicy, WhenFull,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Database::builder("./many-in-flight")
        .sync_policy(SyncPolicy::GroupCommit {
            max_delay: Duration::from_millis(2),
        })
        .queue_limit(QueueLimit::for_load(50_000, Duration::from_millis(20)))
        .open()?;
    let ward = db.tenant("ward-3")?;
    let pulse = ward.stream("pulse")?;
    let reading = |n: u32| [Event::new("measured", n.to_string())];

    let begun = Instant::now();
    let under_way = (0..256)
        .map(|n| pulse.append_async(ExpectedVersion::Any, &reading(n)))
        .collect::<Vec<_>>();
    for append in under_way {
        // Any executor does: this one blocks the thread until the future wakes it.
        assert!(pollster::block_on(append)?.is_durable());
    }
    println!(
        "256 appends, each known to be durable, in {:?}",
        begun.elapsed()
    );

    let begun = Instant::now();
    let early = AppendOptions::new()
        .ack(Ack::Buffered)
        .when_full(WhenFull::Refuse);
    let mut last = None;
    for n in 0..256 {
        last = Some(pulse.append_with(early, &reading(n))?);
    }
    println!(
        "256 answered before they are durable in {:?}",
        begun.elapsed()
    );
    if let Some(receipt) = last {
        ward.wait_durable(receipt.last_position())?;
    }
    println!("and durable after {:?}", begun.elapsed());
    db.close()?;
    Ok(())
}
