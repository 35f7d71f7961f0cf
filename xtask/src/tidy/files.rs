//! Sizes and names of source files.

use super::Finding;
use super::tree::{Tree, folder_of};

const LINES_MAX: usize = 800;

/// Names that say nothing about what lives there.
const NAMES_REFUSED: [&str; 8] = [
    "common", "helper", "helpers", "misc", "shared", "stuff", "util", "utils",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust_files() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(Finding::new(
                path,
                0,
                format!("{lines} lines, more than {LINES_MAX}"),
            ));
        }
        let name = path
            .rsplit('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs");
        if name == "mod" {
            findings.push(Finding::new(
                path,
                0,
                "`foo.rs` beside `foo/`, not `mod.rs`",
            ));
        }
        if NAMES_REFUSED.contains(&name) {
            findings.push(Finding::new(
                path,
                0,
                format!("`{name}` says nothing: name the topic"),
            ));
        }
        let is_named_like_crate = tree
            .packages
            .iter()
            .any(|it| is_in_sources(it, path) && it.name.replace('-', "_") == name);
        if is_named_like_crate {
            findings.push(Finding::new(path, 0, "a module named like its crate"));
        }
    }
    findings
}

fn is_in_sources(package: &super::tree::Package, path: &str) -> bool {
    path.starts_with(&super::tree::join(folder_of(&package.manifest), "src/"))
}
