//! The example data set: two years of a clinic that never was.
//!
//! The same seed gives the same bytes on every machine, so the file in the repository is checked
//! against this generator. Nobody in it exists: names, substances and telephone numbers are made up
//! to look made up.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Outcome;

mod chart;
mod episode;
mod notes;
mod random;

use chart::Chart;
use random::Random;

const PATIENTS: u32 = 400;
const SEED: u64 = 7;
const FILE: &str = "examples/data/clinic.jsonl";

/// 2024-10-01T00:00:00Z.
const FIRST_DAY_S: i64 = 1_727_740_800;
const DAYS: i64 = 730;

/// Options of `cargo xtask generate-clinic`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Another seed gives another clinic.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Where to write; by default the file in the repository.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Writes nothing, and fails when the file is not what would be written.
    #[arg(long)]
    check: bool,
}

/// One line of the file.
#[derive(Debug)]
struct Event {
    time: Timestamp,
    patient: u32,
    kind: &'static str,
    data: Value,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let path = options.out.clone().unwrap_or_else(|| root.join(FILE));
    let text = generate(options.seed);
    if options.check {
        let found = fs::read_to_string(&path)?;
        return if found == text {
            Ok(())
        } else {
            Err(format!("{} is not what the generator writes", path.display()).into())
        };
    }
    fs::write(&path, &text)?;
    println!(
        "{}: {} events, {} bytes",
        path.display(),
        text.lines().count(),
        text.len()
    );
    Ok(())
}

/// The whole file, ordered by time.
fn generate(seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut events: Vec<Event> = (1..=PATIENTS)
        .flat_map(|patient| history(patient, &mut random))
        .collect();
    // The sort is stable: what one patient lives through at one moment keeps its order.
    events.sort_by_key(|event| (event.time, event.patient));
    events.iter().map(line).collect()
}

/// All that happens to one patient.
fn history(patient: u32, random: &mut Random) -> Vec<Event> {
    let opening_hours_s = 7 * 3_600..=18 * 3_600;
    let day = random.number(0..=DAYS * 3 / 4);
    let arrives = FIRST_DAY_S + day * 86_400 + random.number(opening_hours_s);
    let mut chart = Chart::new(patient, arrives, random);
    episode::register(&mut chart);
    while chart.now_s() < FIRST_DAY_S + DAYS * 86_400 {
        match chart.random().number(0..=9) {
            0 => episode::stay(&mut chart),
            1..=3 => episode::emergency(&mut chart),
            _ => episode::appointment(&mut chart),
        }
        chart.wait_minutes(15 * 1_440..=230 * 1_440);
    }
    chart.into_events()
}

fn line(event: &Event) -> String {
    let line = json!({
        "time": event.time.to_string(),
        "patient": format!("patient/{:04}", event.patient),
        "type": event.kind,
        "data": event.data,
    });
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_file_in_the_repository_is_what_the_generator_writes() {
        let file = fs::read_to_string(crate::workspace_root().join(FILE)).unwrap();
        assert!(file == generate(SEED), "run `cargo xtask generate-clinic`");
    }

    #[test]
    fn another_seed_gives_another_clinic() {
        assert!(generate(SEED) != generate(SEED + 1));
    }

    #[test]
    fn the_data_set_has_the_size_and_the_shape_that_the_documents_promise() {
        let text = generate(SEED);
        let events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            (20_000..=24_000).contains(&events.len()),
            "{} events",
            events.len()
        );
        assert!(text.len() <= 8_000_000, "{} bytes", text.len());

        let distinct = |field: &str| {
            events
                .iter()
                .map(|event| event[field].as_str().unwrap())
                .collect::<BTreeSet<_>>()
                .len()
        };
        assert_eq!(distinct("patient"), 400);
        assert!(distinct("type") >= 15, "{} types", distinct("type"));
        let times: Vec<Timestamp> = events
            .iter()
            .map(|event| event["time"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(times.is_sorted());

        let mut sizes: Vec<usize> = events
            .iter()
            .map(|it| it["data"].to_string().len())
            .collect();
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2];
        let largest = sizes[sizes.len() - 1];
        assert!((180..=220).contains(&median), "median {median}");
        assert!((1_800..=2_400).contains(&largest), "largest {largest}");
    }
}
