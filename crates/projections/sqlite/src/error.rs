//! Why something could not be done.

use std::error::Error as StdError;
use std::path::PathBuf;

use kimberlite::Position;

use crate::mapping::MappingError;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The mapping cannot be as it is.
    #[error("the mapping cannot be used")]
    Mapping(#[from] MappingError),
    /// The database refused, or cannot be read.
    #[error(transparent)]
    Database(#[from] kimberlite::Error),
    /// There is no file.
    #[error("there is no {}: a projection makes it", path.display())]
    NoFile {
        /// Where it would be.
        path: PathBuf,
    },
    /// A file is not one that a projection made.
    #[error("{} is not a file that a projection made", path.display())]
    NotAProjection {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A statement would change something; what is derived is changed by events alone.
    #[error("only statements that read are run")]
    Writes,
    /// `SQLite` refused a statement, or failed.
    #[error("SQLite refused the statement")]
    Statement(#[source] Box<dyn StdError + Send + Sync>),
    /// The log ends before a position that was asked for.
    #[error("the log ends at position {end}, before position {position}")]
    BehindEnd {
        /// What was asked for.
        position: Position,
        /// Where the log ends.
        end: Position,
    },
}

impl Error {
    pub(crate) fn statement(error: rusqlite::Error) -> Self {
        Self::Statement(Box::new(error))
    }
}
