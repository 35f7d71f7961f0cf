//! The values that an event gives to the columns of a table.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use kimberlite::projection::Event;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde_json::Value;

use crate::mapping::{ColumnType, Pointer, Source};
use crate::plan::ColumnPlan;

/// What an event says, its JSON read once and only when a column asks for it.
pub(crate) struct Row<'a> {
    event: &'a Event<'a>,
    event_type: &'a str,
    data: Document<'a>,
    metadata: Document<'a>,
}

struct Document<'a> {
    bytes: &'a [u8],
    /// None when it is not JSON.
    value: OnceCell<Option<Value>>,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    /// The event has no such field.
    Missing,
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

impl Cell<'_> {
    pub(crate) fn is_there(&self) -> bool {
        *self != Cell::Missing
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Missing | Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Why an event does not fit a table. It says nothing of what the event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit<'p> {
    DataNotJson,
    MetadataNotJson,
    NoKey(&'p str),
    Type(&'p str, ColumnType),
    RowIsThere,
}

impl fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataNotJson => f.write_str("its data is not JSON that can be read"),
            Self::MetadataNotJson => f.write_str("its metadata is not JSON that can be read"),
            Self::NoKey(column) => write!(f, "it has no value for column {column:?} of the key"),
            Self::Type(column, ColumnType::Integer) => {
                write!(f, "column {column:?}: not an integer of 64 bits")
            }
            Self::Type(column, ColumnType::Real) => write!(f, "column {column:?}: not a number"),
            Self::Type(column, ColumnType::Boolean) => {
                write!(f, "column {column:?}: not true or false")
            }
            Self::Type(column, _) => write!(f, "column {column:?}: not a text"),
            Self::RowIsThere => f.write_str("a row of its key is there"),
        }
    }
}

impl<'a> Row<'a> {
    /// The values of an event; none of one whose payload is gone.
    pub(crate) fn new(event: &'a Event<'a>) -> Option<Self> {
        use kimberlite::projection::Content;

        let Content::Payload {
            event_type,
            metadata,
            data,
        } = event.content
        else {
            return None;
        };
        let document = |bytes| Document {
            bytes,
            value: OnceCell::new(),
        };
        Some(Self {
            event,
            event_type,
            data: document(data),
            metadata: document(metadata),
        })
    }

    pub(crate) fn event_type(&self) -> &'a str {
        self.event_type
    }

    pub(crate) fn stream(&self) -> &'a str {
        self.event.stream
    }

    /// Returns the value of a column.
    pub(crate) fn cell<'p>(&self, column: &'p ColumnPlan) -> Result<Cell<'_>, Misfit<'p>> {
        let misfit = Misfit::Type(&column.name, column.value_type);
        let integer = |value: u64| i64::try_from(value).map(Cell::Integer).map_err(|_| misfit);
        let cell = match &column.source {
            Source::Stream => Cell::Text(self.event.stream.into()),
            Source::EventType => Cell::Text(self.event_type.into()),
            Source::Position => integer(self.event.position.get())?,
            Source::Offset => integer(self.event.offset.get())?,
            Source::Time => integer(self.event.time.as_nanoseconds())?,
            Source::DataBytes => Cell::Blob(self.data.bytes),
            Source::MetadataBytes => Cell::Blob(self.metadata.bytes),
            Source::Data(pointer) => {
                let data = self.data.value().ok_or(Misfit::DataNotJson)?;
                found(data, pointer, column.value_type).ok_or(misfit)?
            }
            // An event without metadata lacks the fields of metadata, and fits all the same.
            Source::Metadata(_) if self.metadata.bytes.is_empty() => Cell::Missing,
            Source::Metadata(pointer) => {
                let metadata = self.metadata.value().ok_or(Misfit::MetadataNotJson)?;
                found(metadata, pointer, column.value_type).ok_or(misfit)?
            }
        };
        if column.is_key && matches!(cell, Cell::Missing | Cell::Null) {
            return Err(Misfit::NoKey(&column.name));
        }
        Ok(cell)
    }
}

impl Document<'_> {
    fn value(&self) -> Option<&Value> {
        let read = || serde_json::from_slice(self.bytes).ok();
        self.value.get_or_init(read).as_ref()
    }
}

/// Returns what a pointer finds as a value of a column; none where it is of another type.
fn found<'v>(document: &'v Value, pointer: &Pointer, value_type: ColumnType) -> Option<Cell<'v>> {
    let value = match pointer.find(document) {
        None => return Some(Cell::Missing),
        Some(Value::Null) => return Some(Cell::Null),
        Some(value) => value,
    };
    match value_type {
        ColumnType::Integer => value.as_i64().map(Cell::Integer),
        ColumnType::Real => value.as_f64().filter(|it| it.is_finite()).map(Cell::Real),
        ColumnType::Boolean => value.as_bool().map(|it| Cell::Integer(it.into())),
        ColumnType::Text => value.as_str().map(|text| Cell::Text(text.into())),
        ColumnType::Json => Some(Cell::Text(value.to_string().into())),
        ColumnType::Blob => None,
    }
}
