//! Which events become which rows.

mod check;
mod error;
mod pointer;
mod source;

use serde::{Deserialize, Serialize};

pub use self::error::{MappingError, TableError};
pub(crate) use self::pointer::Pointer;
pub(crate) use self::source::Source;

/// Tables, the events that feed them, and where the values of their columns come from; checked.
///
/// As JSON, in which people write it, it is an object with the field `tables`. [`Table`] says what stands
/// in each.
///
/// ```
/// use kimberlite_projection_sqlite::{ColumnType, Mapping, Rule, Table};
///
/// let written = Mapping::from_json(
///     r#"{"tables": [{
///         "name": "patients",
///         "key": ["id"],
///         "columns": [
///             {"name": "id", "type": "text", "from": "$stream"},
///             {"name": "ward", "type": "text", "from": "/ward"},
///             {"name": "since_ns", "type": "integer", "from": "$time"}
///         ],
///         "on": [
///             {"types": ["admitted", "moved"], "do": "upsert"},
///             {"types": ["discharged"], "do": "delete"}
///         ]
///     }]}"#,
/// )?;
/// let patients = Table::new("patients")
///     .key(["id"])
///     .column("id", ColumnType::Text, "$stream")
///     .column("ward", ColumnType::Text, "/ward")
///     .column("since_ns", ColumnType::Integer, "$time")
///     .on(Rule::upsert(["admitted", "moved"]))
///     .on(Rule::delete(["discharged"]));
/// assert_eq!(written, Mapping::new([patients])?);
/// # Ok::<(), kimberlite_projection_sqlite::MappingError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    tables: Vec<Table>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct Shown<'a> {
    tables: &'a [Table],
}

impl Mapping {
    /// Makes a mapping of `tables`.
    ///
    /// # Errors
    ///
    /// [`MappingError`] says which table cannot be as it is, and why.
    pub fn new(tables: impl IntoIterator<Item = Table>) -> Result<Self, MappingError> {
        let tables = tables.into_iter().collect::<Vec<_>>();
        check::check(&tables)?;
        Ok(Self { tables })
    }

    /// Reads a mapping from JSON.
    ///
    /// # Errors
    ///
    /// [`MappingError::Form`] where it is none, and as [`new`](Self::new).
    pub fn from_json(text: &str) -> Result<Self, MappingError> {
        let written: Written = serde_json::from_str(text).map_err(MappingError::Form)?;
        Self::new(written.tables)
    }

    /// Returns it as JSON, always the same for the same mapping.
    pub fn to_json(&self) -> String {
        let tables = &self.tables;
        serde_json::to_string(&Shown { tables }).expect("strings and lists have a JSON form")
    }

    /// Returns the tables.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }
}

/// A table, its columns, and the events that change its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "a table does nothing outside of a mapping"]
pub struct Table {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) key: Vec<String>,
    pub(crate) columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) indexes: Vec<Vec<String>>,
    pub(crate) on: Vec<Rule>,
}

impl Table {
    /// Begins a table.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: Vec::new(),
            columns: Vec::new(),
            indexes: Vec::new(),
            on: Vec::new(),
        }
    }

    /// Names the columns of the primary key, which are integers, texts or booleans.
    pub fn key<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a column whose values come from `from`:
    ///
    /// * `/ward`, `/address/city`, `/rooms/0`: what this JSON pointer (RFC 6901) finds in the event's data;
    /// * `$metadata/user`: what it finds in the event's metadata;
    /// * `$data`, `$metadata`: all of it, as JSON, or as it is where the column is a blob;
    /// * `$stream`, `$type`: the names of the stream and of the event's type;
    /// * `$position`, `$offset`, `$time`: where the event stands in the log and in its stream, and its
    ///   nanoseconds since 1970.
    pub fn column(
        mut self,
        name: impl Into<String>,
        value_type: ColumnType,
        from: impl Into<String>,
    ) -> Self {
        self.columns.push(Column {
            name: name.into(),
            value_type,
            from: from.into(),
        });
        self
    }

    /// Adds an index over some columns.
    pub fn index<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.indexes
            .push(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Adds what some events do; for each event the first rule that takes it counts.
    pub fn on(mut self, rule: Rule) -> Self {
        self.on.push(rule);
        self
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A column, and where its values come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) value_type: ColumnType,
    pub(crate) from: String,
}

/// What a column holds. A value of another type does not fit, and its event is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnType {
    /// A whole number of 64 bits with a sign, written without fraction and exponent.
    Integer,
    /// Any number, as the nearest of 64 bits.
    Real,
    /// A text.
    Text,
    /// `true` or `false`, stored as 1 or 0.
    Boolean,
    /// Any JSON value, stored as its text.
    Json,
    /// The bytes of `$data` or `$metadata` as they are.
    Blob,
}

/// What some events do to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "a rule does nothing outside of a table"]
pub struct Rule {
    /// The types of the events; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) types: Vec<String>,
    /// What the names of their streams begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) streams: String,
    #[serde(rename = "do")]
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Upsert,
    Insert,
    Delete,
}

impl Rule {
    /// Events of these types, or of all where none is named, make the row of their key or change it: fields
    /// that they have not leave their columns as they are, JSON's `null` clears them.
    pub fn upsert<S: Into<String>>(types: impl IntoIterator<Item = S>) -> Self {
        Self::new(Action::Upsert, types)
    }

    /// Events of these types, or of all, add a row. Where one of their key is there it stays as it is, and
    /// the event is passed over.
    pub fn insert<S: Into<String>>(types: impl IntoIterator<Item = S>) -> Self {
        Self::new(Action::Insert, types)
    }

    /// Events of these types, or of all, remove the row of their key, if there is one.
    pub fn delete<S: Into<String>>(types: impl IntoIterator<Item = S>) -> Self {
        Self::new(Action::Delete, types)
    }

    fn new<S: Into<String>>(action: Action, types: impl IntoIterator<Item = S>) -> Self {
        Self {
            types: types.into_iter().map(Into::into).collect(),
            streams: String::new(),
            action,
        }
    }

    /// Takes only events of streams whose names begin so.
    pub fn streams(mut self, prefix: impl Into<String>) -> Self {
        self.streams = prefix.into();
        self
    }

    pub(crate) fn takes(&self, stream: &str, event_type: &str) -> bool {
        let is_of_type = self.types.is_empty() || self.types.iter().any(|it| it == event_type);
        is_of_type && stream.starts_with(&self.streams)
    }
}

#[cfg(test)]
mod tests;
