//! Which crate may know which: the arrows between the packages of the workspace.

use super::Finding;
use super::tree::{Edge, Package, Tree};

/// What the libraries may depend on. Benches, fuzz targets and tools may use anything.
const ARROWS: [(&str, &[&str]); 10] = [
    ("kimberlite-types", &[]),
    ("kimberlite-disk", &[]),
    ("kimberlite-crypto", &["kimberlite-types"]),
    ("kimberlite-kernel", &["kimberlite-types"]),
    (
        "kimberlite-projection",
        &["kimberlite-crypto", "kimberlite-disk", "kimberlite-types"],
    ),
    (
        "kimberlite-storage",
        &["kimberlite-crypto", "kimberlite-disk", "kimberlite-types"],
    ),
    (
        "kimberlite",
        &[
            "kimberlite-crypto",
            "kimberlite-disk",
            "kimberlite-kernel",
            "kimberlite-projection",
            "kimberlite-storage",
            "kimberlite-types",
        ],
    ),
    ("kimberlite-projection-sqlite", &["kimberlite"]),
    (
        "kimberlite-projection-kv",
        &["kimberlite-projection", "kimberlite-types"],
    ),
    (
        "kimberlite-testkit",
        &["kimberlite-disk", "kimberlite-types"],
    ),
];

/// Nothing stands on these, so they may stand on anything.
const PROGRAMS: [&str; 1] = ["kimberlite-cli"];

/// The projections that people add, which may be tested in a database.
const PROJECTIONS: &str = "crates/projections/";
const FACADE: &str = "kimberlite";

/// Any library may be tested with it.
const TEST_KIT: &str = "kimberlite-testkit";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        let is_free =
            !package.manifest.starts_with("crates/") || PROGRAMS.contains(&package.name.as_str());
        let what = "a crate without a row in the table of arrows (xtask/src/tidy/arrows.rs)";
        let finding = (!is_free).then(|| Finding::new(&package.manifest, 0, what));
        return finding.into_iter().collect();
    };
    let is_projection = package.manifest.starts_with(PROJECTIONS);
    let is_tested_with = |edge: &Edge| edge.to == TEST_KIT || (is_projection && edge.to == FACADE);
    let is_allowed =
        |edge: &Edge| allowed.contains(&edge.to.as_str()) || (edge.is_dev && is_tested_with(edge));
    let forbidden = package.edges.iter().filter(|edge| !is_allowed(edge));
    forbidden
        .map(|edge| {
            let what = format!("{} must not depend on {}", package.name, edge.to);
            Finding::new(&package.manifest, 0, what)
        })
        .collect()
}
