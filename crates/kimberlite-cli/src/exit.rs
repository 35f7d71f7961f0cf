//! Why a command failed, and with which exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use kimberlite::ErrorKind;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Database(#[from] kimberlite::Error),
    #[error(transparent)]
    Sqlite(#[from] kimberlite_projection_sqlite::Error),
    #[error("{} is not a mapping", path.display())]
    Mapping {
        path: PathBuf,
        #[source]
        source: kimberlite_projection_sqlite::MappingError,
    },
    #[error(
        "there is no projection {name:?} of the tenant: say with --mapping FILE which events become which rows"
    )]
    NoProjection { name: String },
    #[error(
        "another process has the database open, so that projection {name:?} can only be read as it is, \
         and {problem}: have that process do it, or ask with --as-of"
    )]
    InUse { name: String, problem: &'static str },
    #[error("cannot read {}", path.display())]
    Input {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("line {line}: {problem}; mend it, or go on past such lines with --on-error keep")]
    Line { line: u64, problem: String },
    #[error(
        "the log holds another input called {source_name:?} up to line {line}, which this one does \
         not begin with; name this one with --source"
    )]
    OtherSource { source_name: String, line: u64 },
    #[error("cannot tell what {} holds; say it with --format", path.display())]
    UnknownFormat { path: PathBuf },
    #[error("{} exists: name a directory that does not", path.display())]
    Exists { path: PathBuf },
    #[error("there is nothing of the stream {key:?}")]
    NoKey { key: String },
    #[error("the projection cannot be read")]
    Projection(#[from] kimberlite_projection_kv::KvError),
    #[error("the demonstration failed: {0}")]
    Demo(String),
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        use kimberlite_projection_sqlite::Error as Sqlite;

        let code = match self {
            Self::Database(error) | Self::Sqlite(Sqlite::Database(error)) => match error.kind() {
                ErrorKind::NotFound => 3,
                ErrorKind::Locked => 4,
                ErrorKind::WrongKey | ErrorKind::KeyFile => 5,
                ErrorKind::Corrupt | ErrorKind::RolledBack | ErrorKind::Unfinished => 6,
                _ => 1,
            },
            Self::NoKey { .. }
            | Self::NoProjection { .. }
            | Self::Sqlite(Sqlite::NoFile { .. }) => 3,
            Self::InUse { .. } => 4,
            Self::Sqlite(Sqlite::NotAProjection { .. }) => 6,
            // Whoever read the output has had enough.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        };
        ExitCode::from(code)
    }
}
