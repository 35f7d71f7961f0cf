//! Why a mapping is refused.

/// Why a mapping cannot be as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// It is not JSON, or has other fields than a mapping.
    #[error("the mapping is not JSON of the form that a mapping has")]
    Form(#[source] serde_json::Error),
    /// There is no table in it.
    #[error("the mapping has no table")]
    NoTable,
    /// There are more tables than are allowed.
    #[error("the mapping has {count} tables, more than {count_max}")]
    TooManyTables {
        /// How many.
        count: usize,
        /// How many are allowed.
        count_max: usize,
    },
    /// Something is wrong with a table.
    #[error("table {table:?} cannot be as it is")]
    Table {
        /// Its name.
        table: String,
        /// What is wrong.
        #[source]
        source: TableError,
    },
}

/// Why a table cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The name of a table or a column is not allowed.
    #[error("{name:?} is no name: it has 1 to 64 bytes, and no control characters")]
    Name {
        /// The name.
        name: String,
    },
    /// The name of a table is taken by `SQLite` or by what is kept beside the tables.
    #[error("names that begin with \"sqlite_\" or \"_kimberlite\" are taken")]
    Taken,
    /// Another table has this name; upper and lower case are the same.
    #[error("there is another table of this name")]
    Twice,
    /// Two columns have the same name; upper and lower case are the same.
    #[error("column {column:?} is there twice")]
    ColumnTwice {
        /// Its name.
        column: String,
    },
    /// There are too many columns or indexes.
    #[error("it has {count} {what}, more than {count_max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        count_max: usize,
    },
    /// There is no key.
    #[error("it has no key; where events have none of their own, \"$position\" is one")]
    NoKey,
    /// A key or an index names a column that is not there.
    #[error("its {what} names column {column:?}, which it does not have")]
    NoColumn {
        /// A key or an index.
        what: &'static str,
        /// The column.
        column: String,
    },
    /// A key or an index names a column twice, or an index none.
    #[error("its {what} names a column twice, or none")]
    Columns {
        /// A key or an index.
        what: &'static str,
    },
    /// A column of the key has a type that no key has.
    #[error("column {column:?} is in the key, and no integer, text or boolean")]
    KeyType {
        /// The column.
        column: String,
    },
    /// A column comes from nowhere.
    #[error(
        "column {column:?} comes from {from:?}, which is neither a JSON pointer such as \"/ward\" or \
         \"$metadata/user\" nor \"$data\", \"$metadata\", \"$stream\", \"$type\", \"$position\", \
         \"$offset\" or \"$time\""
    )]
    From {
        /// The column.
        column: String,
        /// Where it should come from.
        from: String,
    },
    /// What a column comes from is of another type.
    #[error(
        "column {column:?} comes from {from:?} and has another type: \"$stream\" and \"$type\" are text, \
         \"$position\", \"$offset\" and \"$time\" integer, and nothing but \"$data\" and \"$metadata\" is a blob"
    )]
    FromType {
        /// The column.
        column: String,
        /// Where it comes from.
        from: String,
    },
    /// No event changes it.
    #[error("no event changes it: name some in \"on\"")]
    NoRule,
}
