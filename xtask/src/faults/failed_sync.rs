//! A sync that fails with EIO, once: strace puts the error in place of the system call.
//!
//! The append must say that its outcome is unknown, and so must the next one, although the disk is
//! well again. What reopening shows holds every acknowledged event.

use std::path::Path;
use std::process::Command;

use super::writer::{Writer, acknowledged, check};
use super::{Options, drawn, is_there, scratch};
use crate::Outcome;

/// The failure hits a sync among so many.
const SYNCS_MAX: u64 = 200;

pub(super) fn run(binary: &Path, options: &Options) -> Outcome {
    // What is planted here is lost by power loss alone.
    if options.prove {
        println!("failed sync: nothing to prove, its rounds demand that the writer fails");
        return Ok(());
    }
    if !is_there("strace", "--version") {
        println!("failed sync: skipped, it needs strace");
        return Ok(());
    }
    if !can_inject() {
        println!("failed sync: skipped, this system does not let strace trace");
        return Ok(());
    }
    let folder = scratch("failed-sync")?;
    let db = folder.join("db");
    let mut total = 0;
    for round in 0..options.rounds {
        let nth = 1 + drawn(options.seed, round, SYNCS_MAX);
        let told = fail(binary, &db, nth);
        let told = told.and_then(|told| check(binary, &db, &told).map(|()| told));
        let told = told.map_err(|error| {
            let folder = folder.display();
            format!("round {round}, sync {nth} fails: {error} (files in {folder})")
        })?;
        total += acknowledged(&told);
    }
    std::fs::remove_dir_all(&folder)?;
    println!(
        "failed sync: {} rounds, {total} acknowledged events, none lost",
        options.rounds
    );
    Ok(())
}

fn can_inject() -> bool {
    let mut command = strace(1);
    command.arg("true");
    command.output().is_ok_and(|output| output.status.success())
}

fn strace(nth: u64) -> Command {
    let mut command = Command::new("strace");
    command.args([
        "--follow-forks",
        "--quiet=all",
        "--output=/dev/null",
        "--trace=fdatasync",
    ]);
    command.arg(format!("--inject=fdatasync:error=EIO:when={nth}"));
    command
}

/// Runs a writer until its sync fails, and returns what it told.
fn fail(binary: &Path, db: &Path, nth: u64) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut command = strace(nth);
    command.arg(binary);
    let told = Writer::start(command, db)?.end()?;
    match told.last().filter(|line| line.starts_with("failed")) {
        // It failed while opening the database, or at a checkpoint between two appends.
        None => Ok(told),
        Some(last) if last == "failed OutcomeUnknown OutcomeUnknown" => Ok(told),
        Some(last) => Err(format!("the writer says `{last}`").into()),
    }
}
