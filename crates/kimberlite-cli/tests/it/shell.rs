//! A folder with a database, and the binary to run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

/// What a command printed, and its exit code.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A scratch folder; the database in it is `db`.
pub(crate) struct Shell {
    dir: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("db")
    }

    /// Writes a file of the user's.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("kimberlite"));
        command
            .current_dir(self.dir.path())
            .env_remove("KIMBERLITE_DB")
            .arg("--db")
            .arg(self.db())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed; returns its lines.
    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout.lines().map(str::to_owned).collect()
    }

    /// Runs a command that must succeed with `--json`; returns a value for each line.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let lines = self.lines(&[arguments, &["--json"]].concat());
        let parse = |line: &String| serde_json::from_str(line).unwrap();
        lines.iter().map(parse).collect()
    }

    /// Appends one event, which makes database and tenant where there is none.
    pub(crate) fn append(&self, stream: &str, data: &str) {
        let arguments = ["append", "-t", "t", "-s", stream, "--type", "noted", data];
        self.lines(&arguments);
    }
}

pub(crate) fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Flips a bit of a file.
pub(crate) fn flip(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
