//! Runs histories, thousands of them; `cargo xtask simulate` builds it and passes its options on.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a tool at a terminal: it looks at the clock to end in time, and talks to a person"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_simulation::{Counts, Report, simulate};
use serde_json::json;

/// How many failures are kept; behind so many the cause is known.
const FAILURES_MAX: usize = 20;

/// Runs seeded histories of whole databases on a disk that fails, and holds them against a model.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask simulate")]
struct Options {
    /// How many histories.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Ends after so many minutes, however many histories that were.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads; by default one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints what each history did, step by step.
    #[arg(long)]
    trace: bool,
    /// Writes JSON, one value a line.
    #[arg(long)]
    json: bool,
}

/// What all histories came to.
#[derive(Default)]
struct Total {
    histories: u64,
    counts: Counts,
    failures: Vec<Report>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let started = Instant::now();
    let bar = progress(&options);
    let total = run(&options, started, &bar);
    bar.finish_and_clear();
    tell(&options, &total, started.elapsed());
    if total.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(options: &Options, started: Instant, bar: &ProgressBar) -> Total {
    let end = options.seed.saturating_add(options.seeds);
    let deadline = options
        .minutes
        .map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let in_time = || deadline.is_none_or(|deadline| started.elapsed() < deadline);
    let next = AtomicU64::new(options.seed);
    let total = Mutex::new(Total::default());
    let work = || {
        while in_time() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = simulate(seed, None);
            if options.trace {
                print_trace(&report);
            }
            bar.inc(1);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.histories += 1;
            total.counts += report.counts;
            if report.failure.is_some() && total.failures.len() < FAILURES_MAX {
                total.failures.push(report);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.unwrap_or(cores).max(1) {
            scope.spawn(work);
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failures.sort_by_key(|report| report.seed);
    total
}

fn progress(options: &Options) -> ProgressBar {
    if options.json || options.trace {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(options.seeds);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} histories {per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn print_trace(report: &Report) {
    let mut text = format!("seed {}, digest {}\n", report.seed, report.digest);
    for line in &report.trace {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    print!("{text}");
}

fn tell(options: &Options, total: &Total, took: Duration) {
    for report in &total.failures {
        let failure = report.failure.as_deref().unwrap_or_default();
        let seed = report.seed;
        if options.json {
            println!("{}", json!({"seed": seed, "failure": failure}));
        } else {
            println!("seed {seed}: {failure}");
            println!("  again: cargo xtask simulate --seed {seed} --seeds 1 --trace");
        }
    }
    let (histories, counts) = (total.histories, &total.counts);
    if options.json {
        let value = json!({
            "histories": histories,
            "failures": total.failures.len(),
            "seconds": took.as_secs_f64(),
            "operations": counts.operations,
            "events": counts.events,
            "early": counts.early,
            "awaited": counts.awaited,
            "openings": counts.openings,
            "crashes": counts.crashes,
            "errors": counts.errors,
            "torn": counts.torn,
            "spoiled": counts.spoiled,
            "told": counts.told,
            "sealings": counts.sealings,
            "purged": counts.purged,
            "duplicates": counts.duplicates,
            "retried": counts.retried,
            "backups": counts.backups,
            "restores": counts.restores,
            "projected": counts.projected,
        });
        println!("{value}");
        return;
    }
    println!(
        "{histories} histories in {} s: {} operations, {} acknowledged events, {} openings, {} \
         crashes, {} errors, {} torn ends, {} of {} spoiled copies told, {} \
         sealings, {} events purged, {} retries told and {} appended, {} backups, {} restores, {} \
         projections",
        took.as_secs(),
        counts.operations,
        counts.events,
        counts.openings,
        counts.crashes,
        counts.errors,
        counts.torn,
        counts.told,
        counts.spoiled,
        counts.sealings,
        counts.purged,
        counts.duplicates,
        counts.retried,
        counts.backups,
        counts.restores,
        counts.projected
    );
    match total.failures.len() {
        0 => println!("no promise was broken"),
        FAILURES_MAX => println!("{FAILURES_MAX} histories failed, perhaps more"),
        count => println!("{count} histories failed"),
    }
}
