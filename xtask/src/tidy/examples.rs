//! Examples in the documentation run: none is ignored, and one that is only compiled says why.

use super::Finding;
use super::lexer::{TokenKind, tokens};
use super::tree::Tree;

/// The line above a fence with `no_run` holds these words and the reason.
const REASON: &str = "not run";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust_files() {
        let tokens = tokens(text);
        let docs = tokens.iter().filter(|token| token.kind == TokenKind::Doc);
        let lines = docs.flat_map(|doc| doc.text.lines().zip(doc.line..));
        findings.extend(check_lines(
            path,
            lines.map(|(line, at)| (doc_text(line), at)),
        ));
    }
    for (path, text) in tree.markdown_files() {
        findings.extend(check_lines(path, text.lines().map(str::trim).zip(1..)));
    }
    findings
}

fn doc_text(line: &str) -> &str {
    let line = line.trim_start();
    let prefixes = ["///", "//!", "/**", "/*!", "*"];
    let inside = prefixes
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .unwrap_or(line);
    inside.trim()
}

fn check_lines<'a>(path: &str, lines: impl Iterator<Item = (&'a str, usize)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_inside = false;
    let mut line_above = "";
    for (line, number) in lines {
        if let Some(tags) = line.strip_prefix("```") {
            is_inside = !is_inside;
            if is_inside {
                let what = check_tags(tags, line_above);
                findings.extend(what.map(|what| Finding::new(path, number, what)));
            }
        }
        if !line.is_empty() {
            line_above = line;
        }
    }
    findings
}

fn check_tags(tags: &str, line_above: &str) -> Option<&'static str> {
    let mut tags = tags.split([',', ' ']);
    let says_why = line_above.to_ascii_lowercase().contains(REASON);
    tags.find_map(|tag| match tag {
        _ if tag == "ignore" || tag.starts_with("ignore-") => {
            Some("an ignored example: make it run, or mark it as `text`")
        }
        "no_run" if !says_why => Some("`no_run` without a line above that says why it is not run"),
        _ => None,
    })
}
