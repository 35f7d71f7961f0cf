//! Links of the documents to files of the project lead somewhere.

use super::Finding;
use super::tree::{Tree, folder_of, resolve};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.markdown_files() {
        let mut is_code = false;
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            }
            if is_code {
                continue;
            }
            let broken = targets(line)
                .into_iter()
                .filter(|target| !leads_to_file(tree, path, target));
            findings.extend(broken.map(|target| {
                Finding::new(
                    path,
                    number,
                    format!("the link to `{target}` leads nowhere"),
                )
            }));
        }
    }
    findings
}

/// The targets of `[text](target)`, `[text](target "title")` and `[label]: target`.
fn targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    // Every second piece stands between backticks.
    for (index, piece) in line.split('`').enumerate() {
        // A link whose text is code ends in the piece behind the backticks.
        if index % 2 == 0 {
            let links = piece.split("](").skip(1);
            targets.extend(links.filter_map(|link| link.split([')', ' ']).next()));
        }
    }
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.extend(target.split_whitespace().next());
    }
    targets
}

fn leads_to_file(tree: &Tree, document: &str, target: &str) -> bool {
    let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
    let file = target
        .split('#')
        .next()
        .unwrap_or(target)
        .trim_matches(['<', '>']);
    if is_elsewhere || file.is_empty() {
        return true;
    }
    let folder = if file.starts_with('/') {
        ""
    } else {
        folder_of(document)
    };
    resolve(folder, file).is_some_and(|path| path.is_empty() || tree.paths.contains(&path))
}
