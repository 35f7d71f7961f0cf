//! Runs the simulation as it is released: optimised, and so many times faster.

use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// Options of `cargo xtask simulate`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--locked"])
        .args(["-p", "kimberlite-simulation", "--"])
        .args(&options.options)
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the simulation failed".into())
    }
}
