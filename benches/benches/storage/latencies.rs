//! Latencies of single operations, and how many are done in a second: what a mean hides.
//!
//! Operations that write are measured in rounds, the cases and their floors in turn, each round on
//! fresh files: a disk that is slow for a while is slow for all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Rounds of every case.
const ROUNDS: usize = 5;

/// One case: its name, how many elements an operation has, and what prepares a round of it.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) elements: u64,
    pub(crate) prepare: Box<dyn Fn() -> Box<dyn FnMut(u64)> + 'a>,
}

/// The directory that measured files are made in: the target directory's, or the one that
/// `KIMBERLITE_BENCH_DIR` names. One in memory shows what is left when the disk costs nothing.
pub(crate) fn scratch() -> PathBuf {
    let chosen = std::env::var_os("KIMBERLITE_BENCH_DIR");
    chosen.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
}

/// Whether the command line asks for the bench of this name.
pub(crate) fn is_wanted(name: &str) -> bool {
    let mut filters = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

/// Whether benches are only to be run once, to see that they can.
pub(crate) fn is_smoke_run() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Measures every case `operations` times in each of five rounds, in turn.
pub(crate) fn compare(group: &str, operations: u64, cases: &[Case<'_>]) {
    if !is_wanted(group) {
        return;
    }
    let (operations, rounds) = if is_smoke_run() {
        (2, 1)
    } else {
        (operations, ROUNDS)
    };
    let mut rates = vec![Vec::new(); cases.len()];
    let mut histograms = vec![histogram(); cases.len()];
    for _ in 0..rounds {
        for ((case, rates), histogram) in cases.iter().zip(&mut rates).zip(&mut histograms) {
            let mut operation = (case.prepare)();
            let spent = record(histogram, operations, &mut operation);
            let elements = u32::try_from(operations * case.elements).unwrap_or(u32::MAX);
            rates.push(f64::from(elements) / spent.as_secs_f64());
        }
    }
    for ((case, rates), histogram) in cases.iter().zip(&mut rates).zip(&histograms) {
        rates.sort_by(f64::total_cmp);
        let (least, middle, most) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
        println!(
            "{group}/{}: {:.0} elements/s (rounds {:.0} to {:.0}), {}",
            case.name,
            middle,
            least,
            most,
            quantiles(histogram)
        );
    }
}

/// Measures reads at random positions of `range`, after reading all of it once to warm up.
pub(crate) fn reads(name: &str, count: u64, range: std::ops::Range<u64>, read: impl Fn(u64)) {
    if !is_wanted(name) {
        return;
    }
    let count = if is_smoke_run() { 2 } else { count };
    let span = range.end - range.start;
    for position in range
        .clone()
        .take(usize::try_from(count).unwrap_or(usize::MAX))
    {
        read(position);
    }
    let mut read_nth = |nth: u64| read(range.start + mixed(nth) % span);
    let mut latencies = histogram();
    record(&mut latencies, count, &mut read_nth);
    println!("{name}: {}", quantiles(&latencies));
}

/// A number that looks random, by `SplitMix64`, so that no processor foresees the next.
fn mixed(nth: u64) -> u64 {
    let mut mixed = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn record(
    latencies: &mut Histogram<u64>,
    operations: u64,
    operation: &mut dyn FnMut(u64),
) -> Duration {
    let begun = Instant::now();
    for nth in 0..operations {
        let start = Instant::now();
        operation(nth);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latencies.saturating_record(nanoseconds);
    }
    begun.elapsed()
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a minute in nanoseconds")
}

pub(crate) fn quantiles(latencies: &Histogram<u64>) -> String {
    let at = |quantile| {
        let nanoseconds = latencies.value_at_quantile(quantile);
        format!("{}.{:02}", nanoseconds / 1000, nanoseconds % 1000 / 10)
    };
    format!(
        "p50 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
