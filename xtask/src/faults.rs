//! Faults of real disks, under the writer of the kill test as it is released.
//!
//! Each harness skips itself, and says why, where the machine does not allow it.

mod failed_sync;
mod shutdown;
mod writer;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;

use crate::Outcome;

/// Options of `cargo xtask faults`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which faults; all of them when none is named.
    #[arg(value_enum)]
    faults: Vec<Fault>,
    /// How often each.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plants a fault that no database survives, syncs that do nothing, and demands that it is found.
    #[arg(long)]
    prove: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// A file system is shut down as by power loss, and mounted again.
    Shutdown,
    /// One sync fails with an error of the device.
    FailedSync,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    let binary = build(root)?;
    let chosen = if options.faults.is_empty() {
        Fault::value_variants()
    } else {
        &options.faults
    };
    for fault in chosen {
        match fault {
            Fault::Shutdown => shutdown::run(&binary, options)?,
            Fault::FailedSync => failed_sync::run(&binary, options)?,
        }
    }
    Ok(())
}

/// Builds the command line, and says where it is.
fn build(root: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["-p", "kimberlite-cli"])
        .current_dir(root)
        .status()?;
    if !status.success() {
        return Err("the command line does not build".into());
    }
    // This program lies in a profile's folder of the same target directory.
    let this = std::env::current_exe()?;
    let target = this
        .ancestors()
        .nth(2)
        .ok_or("xtask lies in no target directory")?;
    Ok(target.join("release/kimberlite"))
}

/// Whether a program is there and runs.
fn is_there(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A number from 0 up to `end` for a round, by the finalizer of `SplitMix64`.
fn drawn(seed: u64, round: u32, end: u64) -> u64 {
    let mut random = (seed << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ random >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (random ^ random >> 31) % end
}

/// A folder for temporary files, which stays where a harness fails.
fn scratch(name: &str) -> std::io::Result<PathBuf> {
    let folder = format!("kimberlite-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir(&folder)?;
    Ok(folder)
}
