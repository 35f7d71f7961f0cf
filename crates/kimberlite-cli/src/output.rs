//! Writing results: lines for people, or JSON.

use std::error::Error as _;
use std::io::Write as _;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::exit::Failure;

/// How results are written.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Writes a result: `text` for people, `value` as JSON.
    pub(crate) fn line(&self, text: &str, value: &Value) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let written = if self.json {
            writeln!(out, "{value}")
        } else {
            writeln!(out, "{text}")
        };
        written.map_err(Failure::Output)
    }

    /// Writes what went wrong to standard error, with its causes.
    pub(crate) fn failure(&self, failure: &Failure) {
        if let Failure::Output(_) = failure {
            return;
        }
        let mut err = std::io::stderr().lock();
        let mut causes = Vec::new();
        let mut cause = failure.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        // Nobody is left to tell when standard error is gone.
        let _ = if self.json {
            writeln!(
                err,
                "{}",
                json!({"error": failure.to_string(), "causes": causes})
            )
        } else {
            let causes = causes.iter().map(|cause| format!("\n  because {cause}"));
            writeln!(err, "error: {failure}{}", causes.collect::<String>())
        };
    }

    /// Writes a warning to standard error.
    pub(crate) fn warning(text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
    }

    /// Shows progress on a terminal's standard error; nothing elsewhere, and nothing beside JSON.
    pub(crate) fn progress(&self, total: Option<u64>, unit: &str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit} {{per_sec}} {{eta}}");
        match ProgressStyle::with_template(&template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
