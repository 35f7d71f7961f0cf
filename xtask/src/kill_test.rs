//! Runs the kill test of the command line as it is released.

use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// Options of `cargo xtask kill-test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often the writer is killed.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--locked", "-p", "kimberlite-cli", "--"])
        .arg("kill-test")
        .arg(format!("--rounds={}", options.rounds))
        .arg(format!("--seed={}", options.seed))
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the kill test failed".into())
    }
}
