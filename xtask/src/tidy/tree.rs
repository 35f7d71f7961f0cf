//! The checkout as the rules see it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::metadata::{self, members};

/// Folders that hold no source: build output, fuzz corpora, databases of examples.
const FOLDERS_SKIPPED: [&str; 6] = [
    ".git",
    "artifacts",
    "corpus",
    "coverage",
    "kimberlite-data",
    "target",
];

/// Paths are relative to the root and written with `/`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Text of every `.rs` and `.md` file.
    pub(super) texts: BTreeMap<String, String>,
    /// Every file and folder.
    pub(super) paths: BTreeSet<String>,
    pub(super) packages: Vec<Package>,
}

#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) manifest: String,
    /// The files that the compiler starts from, a crate each.
    pub(super) crate_roots: Vec<String>,
    pub(super) edges: Vec<Edge>,
}

/// A dependency on another package of the workspace.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) to: String,
    pub(super) is_dev: bool,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self, Box<dyn Error>> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        // Workspaces of their own: the fuzz targets need another toolchain, the rivals bring libraries
        // that nothing else is built with.
        for manifest in ["Cargo.toml", "fuzz/Cargo.toml", "benches/rivals/Cargo.toml"] {
            if tree.paths.contains(manifest) {
                tree.packages.extend(packages(root, manifest)?);
            }
        }
        let ours: BTreeSet<String> = tree.packages.iter().map(|it| it.name.clone()).collect();
        for package in &mut tree.packages {
            package.edges.retain(|edge| ours.contains(&edge.to));
        }
        Ok(tree)
    }

    /// The Rust files, path and text.
    pub(super) fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files_ending_in("rs")
    }

    /// The Markdown files, path and text.
    pub(super) fn markdown_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files_ending_in("md")
    }

    fn files_ending_in(&self, extension: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| has_extension(path, extension))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> Result<(), Box<dyn Error>> {
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = join(folder, &name);
            if entry.file_type()?.is_dir() {
                if !FOLDERS_SKIPPED.contains(&name.as_str()) {
                    self.read_folder(root, &path)?;
                    self.paths.insert(path);
                }
                continue;
            }
            if has_extension(&name, "rs") || has_extension(&name, "md") {
                let text = fs::read_to_string(entry.path())
                    .map_err(|error| format!("cannot read {path}: {error}"))?;
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }
}

/// The folder that holds `path`, empty at the root.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` as seen from `folder`, with `.` and `..` resolved; `None` when it leaves the root.
pub(super) fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// The packages of one workspace, as cargo understands their manifests.
fn packages(root: &Path, manifest: &str) -> Result<Vec<Package>, Box<dyn Error>> {
    let packages = metadata::packages(&root.join(manifest))?;
    let root = root
        .to_str()
        .ok_or("the path of the checkout is not UTF-8")?;
    packages
        .iter()
        .map(|package| read_package(package, root).ok_or_else(|| "unknown metadata".into()))
        .collect()
}

fn read_package(package: &Value, root: &str) -> Option<Package> {
    let relative = |path: &Value| {
        let path = path.as_str()?.strip_prefix(root)?;
        Some(path.replace('\\', "/").trim_start_matches('/').to_owned())
    };
    let edge = |dependency: &Value| {
        Some(Edge {
            to: dependency["name"].as_str()?.to_owned(),
            is_dev: dependency["kind"].as_str() == Some("dev"),
        })
    };
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        manifest: relative(&package["manifest_path"])?,
        crate_roots: members(&package["targets"])
            .map(|target| relative(&target["src_path"]))
            .collect::<Option<_>>()?,
        edges: members(&package["dependencies"])
            .map(edge)
            .collect::<Option<_>>()?,
    })
}
