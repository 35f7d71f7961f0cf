//! What cargo knows about the packages of the checkout.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The packages of the workspace whose manifest is `manifest`, without their dependencies.
pub(crate) fn packages(manifest: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--locked",
            "--no-deps",
            "--format-version=1",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cargo metadata of {}: {reason}", manifest.display()).into());
    }
    let mut metadata: Value = serde_json::from_slice(&output.stdout)?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => Err("cargo metadata without packages".into()),
    }
}

/// The members of an array; nothing when `value` is something else.
pub(crate) fn members(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
