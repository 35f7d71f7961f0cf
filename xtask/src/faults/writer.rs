//! A writer that appends numbered events until its disk fails, and what it had acknowledged by then.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Outcome;

/// How often, and how far apart, it is looked whether a writer has stopped: for ten seconds.
const STOP_LOOKS_MAX: u32 = 10_000;
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(1);

pub(super) struct Writer {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// A line each: an acknowledged event, or what a failed append came to.
    told: Vec<String>,
}

impl Writer {
    /// Starts `command`, which ends in the name of the binary, on a database.
    pub(super) fn start(
        mut command: Command,
        db: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        command.arg("demo-writer").arg(db);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let lines = process.stdout.take().ok_or("the writer is mute")?;
        Ok(Self {
            process,
            lines: BufReader::new(lines).lines(),
            told: Vec::new(),
        })
    }

    /// Waits for so many acknowledged events, or for the writer's end.
    pub(super) fn wait_for(&mut self, count: u64) -> std::io::Result<()> {
        for line in self
            .lines
            .by_ref()
            .take(usize::try_from(count).unwrap_or(usize::MAX))
        {
            self.told.push(line?);
        }
        Ok(())
    }

    /// Stops all its threads, once the system calls that they are in have ended.
    pub(super) fn stop(&self) -> Outcome {
        self.signal("-STOP")?;
        for _ in 0..STOP_LOOKS_MAX {
            if self.is_stopped()? {
                return Ok(());
            }
            std::thread::sleep(STOP_LOOK_INTERVAL);
        }
        Err("the writer does not stop".into())
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) -> Outcome {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Outcome {
        let mut kill = Command::new("kill");
        if kill
            .arg(signal)
            .arg(self.process.id().to_string())
            .status()?
            .success()
        {
            Ok(())
        } else {
            Err("the writer takes no signal".into())
        }
    }

    fn is_stopped(&self) -> Result<bool, Box<dyn std::error::Error>> {
        let threads = format!("/proc/{}/task", self.process.id());
        for thread in std::fs::read_dir(threads)? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            let state = status.lines().find_map(|line| line.strip_prefix("State:"));
            // A writer that has ended has nothing under way either.
            let ended = |state: &str| state.trim_start().starts_with(['T', 'Z']);
            if !state.is_some_and(ended) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for its end, which must be a failure, and returns all that it told.
    pub(super) fn end(mut self) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        for line in self.lines.by_ref() {
            self.told.push(line?);
        }
        if self.process.wait()?.success() {
            return Err("the writer ended without a failure".into());
        }
        Ok(self.told)
    }

    /// Ends it, whatever it does.
    pub(super) fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens a database for writing, and holds it against what its writer told: every acknowledged event
/// is there, nothing but what was written in its order, and it verifies.
pub(super) fn check(binary: &Path, db: &Path, told: &[String]) -> Outcome {
    let mut process = Command::new(binary)
        .arg("demo-check")
        .arg(db)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = process.stdin.take().ok_or("the check takes no input")?;
    // A check that has seen enough does not read on.
    let _ = input.write_all(told.join("\n").as_bytes());
    drop(input);
    let output = process.wait_with_output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().into())
    }
}

/// How many of the lines are acknowledged events.
pub(super) fn acknowledged(told: &[String]) -> u64 {
    let events = told.iter().filter(|line| !line.starts_with("failed"));
    events.count() as u64
}
