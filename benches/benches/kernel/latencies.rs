//! How long single commands take, over 100,000 streams.
//!
//! Each is timed by itself, cases and floors in turn, in rounds. Reading the clock twice is part of
//! every figure; the first floor is that alone, the second a lookup and an addition between the two.

use std::hint::black_box;
use std::time::Instant;

use hdrhistogram::Histogram;
use kimberlite_kernel::{
    Command, ExpectedVersion, Retention, RetentionAct, Scope, State, apply_committed,
};
use kimberlite_types::{SessionId, StreamId};

use super::{KeyedFloor, STREAMS, TIME, append, append_keyed, fill_keys, state_with};

const COMMANDS: u64 = 200_000;
const ROUNDS: u64 = 5;

/// What is timed; of commands, their names.
const CASES: [(&str, Case); 9] = [
    ("floor: the clock", Case::Clock),
    ("floor: lookup and addition", Case::Lookup),
    ("append", Case::Append),
    ("floor: keyed", Case::KeyedFloor),
    ("append with a key", Case::Keyed),
    ("retry", Case::Retry),
    ("append of the wrong version", Case::Refused),
    ("checkpoint", Case::Checkpoint),
    ("rule of retention", Case::Retain),
];

#[derive(Clone, Copy)]
enum Case {
    Clock,
    Lookup,
    Append,
    KeyedFloor,
    Keyed,
    Retry,
    Refused,
    Checkpoint,
    Retain,
}

/// What the cases work on.
struct Bench {
    state: State,
    session: SessionId,
    streams: Vec<StreamId>,
    /// The newest key.
    key: u64,
    floor: KeyedFloor,
    floor_key: u64,
}

/// Prints the quantiles of every case, if the command line asks for latencies.
pub(super) fn print() {
    let mut filters = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    if filters.peek().is_some() && !filters.any(|filter| "latency".contains(&filter)) {
        return;
    }
    let smoke = std::env::args().any(|argument| argument == "--test");
    let (commands, rounds) = if smoke { (10, 1) } else { (COMMANDS, ROUNDS) };
    let mut bench = Bench::new();
    let mut histograms = CASES.map(|_| histogram());
    for _ in 0..rounds {
        for ((_, case), latencies) in CASES.iter().zip(&mut histograms) {
            for nth in 0..commands {
                latencies.saturating_record(bench.time(*case, nth));
            }
        }
    }
    for ((name, _), latencies) in CASES.iter().zip(&histograms) {
        let at = |quantile| latencies.value_at_quantile(quantile);
        println!(
            "kernel/latency/{name}: p50 {} ns, p99 {} ns, p99.9 {} ns, max {} ns, of {}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            latencies.len()
        );
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("a second in nanoseconds")
}

impl Bench {
    fn new() -> Self {
        let (mut state, session, streams) = state_with(STREAMS[2]);
        let key = fill_keys(&mut state, session, &streams);
        let floor = KeyedFloor::new(&streams);
        Self {
            state,
            session,
            streams,
            key,
            floor,
            floor_key: key,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    fn time(&mut self, case: Case, nth: u64) -> u64 {
        let place = usize::try_from(nth).expect("a small number") % self.streams.len();
        let stream = black_box(self.streams[place]);
        let command = self.command(case, stream, nth);
        let begun = Instant::now();
        match command {
            Some(command) => drop(black_box(apply_committed(&mut self.state, command))),
            None => self.floor(case, stream),
        }
        let took = begun.elapsed();
        u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
    }

    fn floor(&mut self, case: Case, stream: StreamId) {
        match case {
            Case::Lookup => {
                let next = self.floor.streams.get_mut(&stream).expect("it is there");
                *next += 1;
                black_box(next);
            }
            Case::KeyedFloor => {
                self.floor_key += 1;
                self.floor.append(stream, self.floor_key);
            }
            _ => {}
        }
    }

    /// Returns the command of a case; none of a floor.
    fn command(&mut self, case: Case, stream: StreamId, nth: u64) -> Option<Command> {
        let session = self.session;
        Some(match case {
            Case::Clock | Case::Lookup | Case::KeyedFloor => return None,
            Case::Append => append(stream, session),
            Case::Keyed => {
                self.key += 1;
                append_keyed(stream, session, self.key)
            }
            Case::Retry => append_keyed(stream, session, self.key - nth * 7_919 % 50_000),
            Case::Refused => {
                let mut command = append(stream, session);
                if let Command::Append { expected, .. } = &mut command {
                    *expected = ExpectedVersion::NoStream;
                }
                command
            }
            Case::Checkpoint => Command::Checkpoint {
                size: self.state.next_position(),
                time: TIME,
            },
            Case::Retain => {
                let rule = Some(Retention {
                    age_ns: nth,
                    records: 0,
                });
                let scope = Scope::Stream(stream);
                let act = RetentionAct::Retain { scope, rule };
                let (seal, time) = (None, TIME);
                Command::Retention { act, seal, time }
            }
        })
    }
}
