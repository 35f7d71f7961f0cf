//! Runs the model tests: the locks of appends and of the runner of projections replaced by those of shuttle, in a target
//! directory of their own, since every crate is built with another flag.

use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// Options of `cargo xtask model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Runs the histories whose names hold this.
    #[arg(default_value = "")]
    filter: String,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "--lib"])
        .args(["-p", "kimberlite-storage", "-p", "kimberlite-projection"])
        .args(["--target-dir", "target/model"])
        .arg(format!("model::{}", options.filter))
        .env("RUSTFLAGS", "--cfg shuttle")
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("a model test failed".into())
    }
}
