//! Chores of the workspace, run as `cargo xtask <chore>`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool at a terminal: it reads the checkout and talks to a person"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod clinic;
mod examples;
mod faults;
mod fuzz;
mod kill_test;
mod metadata;
mod model;
mod simulate;
mod tidy;

/// Chores of the Kimberlite workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Checks the rules that the compiler does not know; `cargo test` does the same.
    Tidy,
    /// Writes the example data set, events of a clinic that never was, as JSON lines.
    GenerateClinic(clinic::Options),
    /// Runs every example program.
    Examples,
    /// Runs the fuzz targets, each for a while (needs cargo-fuzz and a nightly toolchain).
    Fuzz(fuzz::Options),
    /// Kills a writer over and over, in release, and checks that nothing acknowledged is lost.
    KillTest(kill_test::Options),
    /// Tries many orders of threads on what appends wait by, with shuttle in place of the system.
    Model(model::Options),
    /// Makes a real disk fail under a writer (needs root, or strace), and checks that nothing
    /// acknowledged is lost.
    Faults(faults::Options),
    /// Runs seeded histories of databases on a disk that fails, in release.
    Simulate(simulate::Options),
}

fn main() -> ExitCode {
    let root = workspace_root();
    let outcome = match Arguments::parse().chore {
        Chore::Tidy => tidy::run(&root),
        Chore::GenerateClinic(options) => clinic::run(&root, &options),
        Chore::Examples => examples::run(&root),
        Chore::Fuzz(options) => fuzz::run(&root, &options),
        Chore::KillTest(options) => kill_test::run(&root, &options),
        Chore::Model(options) => model::run(&root, &options),
        Chore::Faults(options) => faults::run(&root, &options),
        Chore::Simulate(options) => simulate::run(&root, &options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a chore ends with; the error is a sentence for the person at the terminal.
type Outcome = Result<(), Box<dyn Error>>;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies in a folder of the workspace")
        .to_path_buf()
}
