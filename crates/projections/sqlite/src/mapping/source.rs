//! Where the values of a column come from.

use super::{ColumnType, Pointer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stream,
    EventType,
    Position,
    Offset,
    Time,
    Data(Pointer),
    Metadata(Pointer),
    DataBytes,
    MetadataBytes,
}

impl Source {
    /// Reads what stands in `from` of a column of this type; an error says which types it may have.
    pub(crate) fn parse(from: &str, value_type: ColumnType) -> Result<Self, Refused> {
        let (source, is_of_type) = match (from, value_type) {
            ("$stream", it) => (Self::Stream, it == ColumnType::Text),
            ("$type", it) => (Self::EventType, it == ColumnType::Text),
            ("$position", it) => (Self::Position, it == ColumnType::Integer),
            ("$offset", it) => (Self::Offset, it == ColumnType::Integer),
            ("$time", it) => (Self::Time, it == ColumnType::Integer),
            ("$data", ColumnType::Blob) => (Self::DataBytes, true),
            ("$metadata", ColumnType::Blob) => (Self::MetadataBytes, true),
            (from, it) => (Self::pointed(from)?, it != ColumnType::Blob),
        };
        if is_of_type {
            Ok(source)
        } else {
            Err(Refused::Type)
        }
    }

    fn pointed(from: &str) -> Result<Self, Refused> {
        let pointer = |text| Pointer::parse(text).ok_or(Refused::Form);
        if let Some(text) = from.strip_prefix("$metadata") {
            pointer(text).map(Self::Metadata)
        } else if let Some(text) = from.strip_prefix("$data") {
            pointer(text).map(Self::Data)
        } else if from.is_empty() {
            Err(Refused::Form)
        } else {
            pointer(from).map(Self::Data)
        }
    }
}

/// Why a column cannot come from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It names nothing.
    Form,
    /// What it names is of another type.
    Type,
}
