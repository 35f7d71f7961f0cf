//! Runs every example program of the workspace, each in an empty folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use crate::Outcome;
use crate::metadata::{members, packages};

pub(crate) fn run(root: &Path) -> Outcome {
    let manifest = root.join("Cargo.toml");
    let mut count = 0;
    for package in packages(&manifest)? {
        for target in members(&package["targets"]) {
            let is_example = members(&target["kind"]).any(|kind| kind == "example");
            if let (true, Some(name)) = (is_example, target["name"].as_str()) {
                run_example(&package["name"], name, &manifest)?;
                count += 1;
            }
        }
    }
    println!("{count} examples ran");
    Ok(())
}

fn run_example(package: &serde_json::Value, name: &str, manifest: &Path) -> Outcome {
    println!("example {name}");
    let folder = Scratch::new(name)?;
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--example", name])
        .args(
            package
                .as_str()
                .map(|package| format!("--package={package}")),
        )
        .arg("--manifest-path")
        .arg(manifest)
        .current_dir(&folder.path)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("example {name}: {status}").into())
    }
}

/// A folder that is removed when the example has run.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = env::temp_dir().join(format!("kimberlite-{name}-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("left behind: {} ({error})", self.path.display());
        }
    }
}
