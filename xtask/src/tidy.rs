//! Rules of the project that neither the compiler nor clippy checks.
//!
//! [`check`] reads the checkout into a [`Tree`] once; each rule is a function over that tree, so
//! that the tests can plant a fault in a tree made by hand.

use std::error::Error;
use std::fmt;
use std::path::Path;

use crate::Outcome;

mod arrows;
mod comments;
mod examples;
mod files;
mod lexer;
mod links;
mod modules;
#[cfg(test)]
mod tests;
mod tree;

use tree::Tree;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, from the root of the workspace.
    pub(crate) path: String,
    /// 1-based; 0 when the file as a whole is meant.
    pub(crate) line: usize,
    /// The rule and what breaks it.
    pub(crate) what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path, self.what),
            line => write!(formatter, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Checks every rule over the workspace at `root`; an empty answer is a tidy workspace.
///
/// # Errors
///
/// A file that cannot be read, or a `cargo metadata` that fails.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>, Box<dyn Error>> {
    Ok(check_tree(&Tree::read(root)?))
}

fn check_tree(tree: &Tree) -> Vec<Finding> {
    let rules = [
        arrows::check,
        files::check,
        modules::check,
        comments::check,
        examples::check,
        links::check,
    ];
    let mut findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

/// Prints the findings at `root`; any finding is a failure.
pub(crate) fn run(root: &Path) -> Outcome {
    let findings = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} untidy places").into()),
    }
}
