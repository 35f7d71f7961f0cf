//! Runs the fuzz targets, one after the other.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::metadata::{members, packages};

const TOOLCHAIN: &str = "nightly";

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each target runs; the fuzzer takes 0 for no end.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The targets to run; all of them when none is named.
    targets: Vec<String>,
}

pub(crate) fn run(root: &Path, options: &Options) -> Outcome {
    require_tools()?;
    let known = targets(root)?;
    if let Some(unknown) = options
        .targets
        .iter()
        .find(|target| !known.contains(target))
    {
        return Err(format!("no fuzz target `{unknown}`; there are {}", known.join(", ")).into());
    }
    let chosen = if options.targets.is_empty() {
        &known
    } else {
        &options.targets
    };
    for target in chosen {
        if !cargo_fuzz(root).args(["build", target]).status()?.success() {
            return Err(format!("fuzz target {target} does not build").into());
        }
        println!("fuzz target {target}, {} s", options.seconds);
        let status = cargo_fuzz(root)
            .args(["run", target, "--", "-verbosity=0"])
            .arg(format!("-max_total_time={}", options.seconds))
            .status()?;
        if !status.success() {
            let found =
                format!("fuzz target {target} failed, by an input in fuzz/artifacts/{target}");
            let replay = format!("replay it with `cargo +{TOOLCHAIN} fuzz run {target} <file>`");
            return Err(format!("{found}; {replay}").into());
        }
    }
    println!("{} targets, no failure", chosen.len());
    Ok(())
}

/// The targets are the binaries of the fuzz package.
fn targets(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let packages = packages(&root.join("fuzz/Cargo.toml"))?;
    let targets = packages
        .iter()
        .flat_map(|package| members(&package["targets"]));
    Ok(targets
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

/// Says how to get what is missing, before anything is built.
fn require_tools() -> Outcome {
    let answers = |command: &mut Command| {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !answers(Command::new("rustup").args(["run", TOOLCHAIN, "rustc", "--version"])) {
        return Err("fuzzing needs a nightly compiler: `rustup toolchain install nightly`".into());
    }
    if !answers(Command::new("cargo-fuzz").args(["fuzz", "--version"])) {
        return Err("fuzzing needs cargo-fuzz: `cargo install cargo-fuzz --locked`".into());
    }
    Ok(())
}

fn cargo_fuzz(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo", "fuzz"]);
    command.current_dir(root);
    // Cargo hands the compiler that built this program on to its children.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}
