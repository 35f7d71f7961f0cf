//! Killing a writer with SIGKILL, and looking at what it leaves: a step of the demonstration, and by
//! itself `kimberlite kill-test`.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use kimberlite::{Database, Error, Event, ExpectedVersion, Position, Stream};
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;

const TENANT: &str = "killed";

/// When a writer is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// How many events it has acknowledged at least.
    acknowledged: usize,
    /// How long it then goes on.
    delay: Duration,
}

impl Moment {
    pub(crate) const fn after_events(acknowledged: usize) -> Self {
        Self {
            acknowledged,
            delay: Duration::ZERO,
        }
    }

    /// Chooses the moment of a round: while it opens the database, before its first event, or
    /// somewhere in its later life, and in the middle of whatever it does then.
    fn of_round(seed: u64, round: u32) -> Self {
        // The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
        let mut random = (seed << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ random >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        let [kind, events, low, high, ..] = random.to_le_bytes();
        let microseconds = u64::from(u16::from_le_bytes([low, high]));
        match kind % 4 {
            0 => Self {
                acknowledged: 0,
                delay: Duration::from_micros(microseconds),
            },
            _ => Self {
                acknowledged: usize::from(events) + 1,
                delay: Duration::from_micros(microseconds % 4096),
            },
        }
    }
}

/// Runs a writer up to `moment`, kills it, and checks what is there. Returns how many events it had
/// acknowledged.
pub(crate) fn kill_writer(db: &Path, moment: Moment) -> Result<usize, Failure> {
    let failed = |what| move |source| Failure::System { what, source };
    let mut writer = spawn_writer(db).map_err(failed("start the writer"))?;
    let lines = writer.stdout.take();
    let lines = lines.ok_or_else(|| Failure::Demo("the writer is mute".to_owned()))?;
    let mut lines = BufReader::new(lines).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    for line in lines.by_ref().take(moment.acknowledged) {
        acknowledged.extend(parse(&line));
    }
    let enough = acknowledged.len() == moment.acknowledged;
    require(enough, "the writer ended before it was killed")?;
    std::thread::sleep(moment.delay);
    writer.kill().map_err(failed("kill the writer"))?;
    // What it had acknowledged by then is still in the pipe.
    acknowledged.extend(lines.filter_map(|line| parse(&line)));
    let status = writer.wait().map_err(failed("wait for the writer"))?;
    require(
        !status.success() && status.code().is_none(),
        "the writer ended by itself",
    )?;
    check(db, &acknowledged)?;
    Ok(acknowledged.len())
}

/// Opens what a killed writer left: every acknowledged event is there, nothing but what it wrote in
/// its order, and all of it verifies.
fn check(db: &Path, acknowledged: &[(u64, u64)]) -> Result<(), Failure> {
    let database = Database::open(db)?;
    let tenant = database.tenant(TENANT)?;
    for (position, number) in acknowledged {
        let record = tenant.read_position(Position::new(*position))?;
        require(
            record.is_some_and(|record| *record.data() == number.to_string()),
            &format!("the acknowledged event at position {position} is not there"),
        )?;
    }
    for (index, record) in tenant.read_all(..).enumerate() {
        require(
            *record?.data() == index.to_string(),
            "there is an event that was not written",
        )?;
    }
    require(
        tenant.verify()?.is_sound(),
        "the log does not verify after a kill",
    )
}

fn parse(line: &str) -> Option<(u64, u64)> {
    let (position, number) = line.split_once(' ')?;
    Some((position.parse().ok()?, number.parse().ok()?))
}

fn spawn_writer(db: &Path) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("demo-writer")
        .arg(db)
        .stdout(Stdio::piped())
        .spawn()
}

/// Appends numbered events for ever, and prints the position of each that is acknowledged.
pub(crate) fn writer(dir: &Path) -> Result<ExitCode, Failure> {
    let database = Database::open(dir)?;
    let tenant = database.tenant(TENANT)?;
    let mut number = u64::try_from(tenant.read_all(..).count()).unwrap_or(u64::MAX);
    let stream = tenant.stream("numbers")?;
    loop {
        let count = 1 + number % 3;
        let events = (number..number + count).map(|n| Event::new("number", n.to_string()));
        let receipt = match stream.append(ExpectedVersion::Any, &events.collect::<Vec<_>>()) {
            Ok(receipt) => receipt,
            Err(error) => {
                tell_failure(&stream, &error)?;
                return Err(error.into());
            }
        };
        let mut out = std::io::stdout().lock();
        for nth in 0..count {
            let position = receipt.first_position().get() + nth;
            writeln!(out, "{position} {}", number + nth).map_err(Failure::Output)?;
        }
        number += count;
        // A checkpoint now and then, so that some writers die while making one.
        if number.is_multiple_of(64) {
            tenant.checkpoint()?;
        }
    }
}

/// Says what an append came to that failed, and what the next one comes to, for whoever made it fail.
fn tell_failure(stream: &Stream, error: &Error) -> Result<(), Failure> {
    let again = stream.append(ExpectedVersion::Any, &[Event::new("number", "again")]);
    let again = match again {
        Ok(_) => "acknowledged".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let told = writeln!(std::io::stdout(), "failed {:?} {again}", error.kind());
    told.map_err(Failure::Output)
}

/// Checks what a writer left, whose lines come on standard input.
pub(crate) fn check_left(dir: &Path) -> Result<ExitCode, Failure> {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    let acknowledged = lines.filter_map(|line| parse(&line)).collect::<Vec<_>>();
    check(dir, &acknowledged)?;
    Ok(ExitCode::SUCCESS)
}

/// Kills a writer `rounds` times on one database, each time at another moment.
pub(crate) fn kill_test(rounds: u32, seed: u64, output: &Output) -> Result<ExitCode, Failure> {
    let dir = scratch_dir(None)?;
    let db = dir.join("db");
    let bar = output.progress(Some(u64::from(rounds)), "rounds");
    let mut acknowledged = 0;
    for round in 0..rounds {
        let moment = Moment::of_round(seed, round);
        acknowledged += kill_writer(&db, moment).map_err(|failure| {
            Failure::Demo(format!(
                "{failure} (round {round}, seed {seed}, {moment:?}, files in {})",
                dir.display()
            ))
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    remove(&dir)?;
    output.line(
        &format!("{rounds} kills, {acknowledged} acknowledged events, none lost"),
        &json!({"rounds": rounds, "acknowledged": acknowledged, "lost": 0}),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a directory for databases that are there to be looked at: `keep`, which must not exist, or
/// one for temporary files.
#[expect(
    clippy::disallowed_methods,
    reason = "the directory is the demonstration's own"
)]
pub(crate) fn scratch_dir(keep: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = keep.map_or_else(
        || std::env::temp_dir().join(format!("kimberlite-demo-{}", std::process::id())),
        Path::to_owned,
    );
    if dir.exists() {
        return Err(Failure::Exists { path: dir });
    }
    let made = std::fs::create_dir_all(&dir);
    made.map_err(|source| Failure::System {
        what: "make a directory for the demonstration",
        source,
    })?;
    Ok(dir)
}

pub(crate) fn remove(dir: &Path) -> Result<(), Failure> {
    let removed = std::fs::remove_dir_all(dir);
    removed.map_err(|source| Failure::System {
        what: "remove the demonstration's files",
        source,
    })
}

pub(crate) fn require(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Demo(otherwise.to_owned()))
    }
}
