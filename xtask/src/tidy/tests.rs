//! The rules hold in this workspace, and each of them notices a fault that is planted.

use super::tree::{Edge, Package, Tree};
use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        let mut part = *path;
        while !part.is_empty() {
            tree.paths.insert(part.to_owned());
            part = super::tree::folder_of(part);
        }
        tree.texts.insert((*path).to_owned(), (*text).to_owned());
    }
    tree
}

fn package(name: &str, edges: &[(&str, bool)]) -> Package {
    Package {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        crate_roots: vec![format!("crates/{name}/src/lib.rs")],
        edges: edges
            .iter()
            .map(|&(to, is_dev)| Edge {
                to: to.to_owned(),
                is_dev,
            })
            .collect(),
    }
}

/// Checks that one file `src/lib.rs` of a crate `a` gives findings on just these lines.
fn check_lib(text: &str, lines: &[usize]) {
    check_files(&[("crates/kimberlite-types/src/lib.rs", text)], lines);
}

fn check_files(files: &[(&str, &str)], lines: &[usize]) {
    let mut tree = tree(files);
    tree.packages.push(package("kimberlite-types", &[]));
    let findings = check_tree(&tree);
    let found: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(found, lines, "in {files:?}: {findings:?}");
}

#[test]
fn the_workspace_is_tidy() {
    let findings = check(&crate::workspace_root()).unwrap();
    let report: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "untidy:\n{}", report.join("\n"));
}

#[test]
fn the_workspace_that_is_checked_is_not_empty() {
    let tree = Tree::read(&crate::workspace_root()).unwrap();
    assert!(tree.texts.contains_key("xtask/src/tidy/tests.rs"));
    let facade = tree
        .packages
        .iter()
        .find(|package| package.name == "kimberlite")
        .unwrap();
    assert_eq!(facade.manifest, "crates/kimberlite/Cargo.toml");
    assert!(
        facade
            .edges
            .iter()
            .any(|edge| edge.to == "kimberlite-storage" && !edge.is_dev)
    );
    assert!(tree.paths.contains("crates/kimberlite/src/lib.rs"));
}

#[test]
fn an_arrow_that_is_not_allowed_is_found() {
    let arrows = |name: &str, edges: &[(&str, bool)]| {
        let mut tree = Tree::default();
        tree.packages.push(package(name, edges));
        check_tree(&tree).len()
    };
    assert_eq!(
        arrows("kimberlite-storage", &[("kimberlite-types", false)]),
        0
    );
    assert_eq!(
        arrows("kimberlite-storage", &[("kimberlite-kernel", false)]),
        1
    );
    assert_eq!(arrows("kimberlite-types", &[("kimberlite-disk", true)]), 1);
    assert_eq!(
        arrows("kimberlite-kernel", &[("kimberlite-testkit", true)]),
        0
    );
    assert_eq!(
        arrows("kimberlite-kernel", &[("kimberlite-testkit", false)]),
        1
    );
    assert_eq!(
        arrows("kimberlite-cli", &[("kimberlite-storage", false)]),
        0
    );
    assert_eq!(arrows("kimberlite-novel", &[]), 1);
}

#[test]
fn a_file_that_is_too_long_or_badly_named_is_found() {
    check_lib(&"\n".repeat(800), &[]);
    check_lib(&"\n".repeat(801), &[0]);
    let folder = "crates/kimberlite-types/src";
    for (declaration, file) in [
        ("mod helpers;", "helpers.rs"),
        ("mod kimberlite_types;", "kimberlite_types.rs"),
        ("#[path = \"mod.rs\"] mod other;", "mod.rs"),
    ] {
        let (root, module) = (format!("{folder}/lib.rs"), format!("{folder}/{file}"));
        check_files(&[(&root, declaration), (&module, "")], &[0]);
    }
}

#[test]
fn a_file_that_no_crate_reaches_is_found() {
    let folder = "crates/kimberlite-types/src";
    let check = |root: &str, file: &str, lines: &[usize]| {
        let (lib, file) = (format!("{folder}/lib.rs"), format!("{folder}/{file}"));
        check_files(&[(&lib, root), (&file, "")], lines);
    };
    check("mod one;", "one.rs", &[]);
    check("pub(crate) mod one;", "one.rs", &[]);
    check("mod one { pub mod two; }", "one/two.rs", &[]);
    check("fn f() { } mod one;", "one.rs", &[]);
    check(
        "#[cfg(test)] #[path = \"far/off.rs\"] mod one;",
        "far/off.rs",
        &[],
    );
    check("include!(\"tables.rs\");", "tables.rs", &[]);
    check("", "one.rs", &[0]);
    check("// As in `mod one;` elsewhere.", "one.rs", &[0]);
    check("const A: &str = \"mod one;\";", "one.rs", &[0]);
    check("mod one { mod two; }", "two.rs", &[0]);
    check(
        "#[path = \"two.rs\"] mod one { } mod three;",
        "two.rs",
        &[0],
    );
    let nested = [
        ("lib.rs", "mod one;"),
        ("one.rs", "mod two;"),
        ("one/two.rs", ""),
    ]
    .map(|(file, text)| (format!("{folder}/{file}"), text));
    let nested: Vec<(&str, &str)> = nested
        .iter()
        .map(|(file, text)| (file.as_str(), *text))
        .collect();
    check_files(&nested, &[]);
}

#[test]
fn a_test_that_is_switched_off_is_found() {
    check_lib("#[test]\n#[ignore]\nfn a() {}", &[2]);
    check_lib("#[ignore = \"slow\"]\nfn a() {}", &[1]);
    check_lib("#[cfg_attr(windows, ignore)]\nfn a() {}", &[1]);
    check_lib(
        "#[expect(unused, reason = \"ignore\")]\nfn ignore() {}",
        &[],
    );
}

#[test]
fn a_comment_about_the_project_instead_of_the_code_is_found() {
    check_lib("// TODO later", &[1]);
    check_lib("/// A reader.\n/// fixme: slow", &[2]);
    check_lib("const A: &str = \"// TODO\";", &[]);
    check_lib("// Since phase 2 this is sorted.", &[1]);
    check_lib("// See (#12).", &[1]);
    check_lib("// A key in PKCS #8.", &[]);
    check_lib("/* one\n   issue 7 */", &[2]);
    check_lib(
        "// The phases of the moon, 2 of them, and SHA-256; see RFC 6962.",
        &[],
    );
    check_lib("// ---- reading ----", &[1]);
    check_lib("//////////////////", &[1]);
    check_lib("//! | a |\n//! |----|", &[]);
    check_lib("// a -- b -> c", &[]);
    check_lib("// let a = 5;", &[1]);
    check_lib("// write(&a);", &[1]);
    check_lib("// a sentence (with more in it);", &[]);
    check_lib(
        "// Use the first; the second is\n// for readers (and writers).",
        &[],
    );
}

#[test]
fn an_example_that_does_not_run_is_found() {
    check_lib("/// ```\n/// a\n/// ```", &[]);
    check_lib("/// ```ignore\n/// a\n/// ```", &[1]);
    check_lib("//! ```rust,no_run\n//! a\n//! ```", &[1]);
    check_lib(
        "/// Not run: it would wait for a person.\n///\n/// ```no_run\n/// ```",
        &[],
    );
    check_files(
        &[("README.md", "# A\n\n```rust,ignore\nlet a;\n```\n")],
        &[3],
    );
    check_files(&[("README.md", "```text\nignore\n```\n")], &[]);
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let check = |text: &str, lines: &[usize]| {
        check_files(
            &[("docs/a.md", text), ("docs/b.md", ""), ("c.md", "")],
            lines,
        );
    };
    check(
        "[b](b.md) [c](../c.md#top) [d](/docs/) [e](https://e.example) [f](#f)",
        &[],
    );
    check("one\n[b](c.md)", &[2]);
    check("[`code`](gone.md \"title\")", &[1]);
    check("[label]: gone.md", &[1]);
    check("[out](../../c.md)", &[1]);
    check("`[b](gone.md)`\n```\n[b](gone.md)\n```", &[]);
}
