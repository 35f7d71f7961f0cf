//! A mapping made ready: what is looked up for each event, and the SQL that is run for it.
//!
//! Names are always quoted, and values always bound.

use std::fmt::Write as _;

use crate::mapping::{Action, ColumnType, Mapping, Rule, Source, Table};

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tables: Vec<TablePlan>,
    /// Makes the tables and their indexes.
    pub(crate) create: String,
    /// The mapping, as it is kept beside the tables.
    pub(crate) mapping: String,
}

#[derive(Debug)]
pub(crate) struct TablePlan {
    pub(crate) name: String,
    pub(crate) columns: Vec<ColumnPlan>,
    pub(crate) rules: Vec<Rule>,
    /// Takes the values of all columns, then for each that is not in the key whether it is there.
    pub(crate) upsert: String,
    /// Takes the values of all columns.
    pub(crate) insert: String,
    /// Takes the values of the key's columns.
    pub(crate) delete: String,
}

#[derive(Debug)]
pub(crate) struct ColumnPlan {
    pub(crate) name: String,
    pub(crate) value_type: ColumnType,
    pub(crate) source: Source,
    pub(crate) is_key: bool,
}

impl Plan {
    pub(crate) fn new(mapping: &Mapping) -> Self {
        let mut create = String::new();
        for (nth, table) in mapping.tables().iter().enumerate() {
            create_table(&mut create, table);
            create_indexes(&mut create, nth, table);
        }
        Self {
            tables: mapping.tables().iter().map(TablePlan::new).collect(),
            create,
            mapping: mapping.to_json(),
        }
    }
}

impl TablePlan {
    fn new(table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| ColumnPlan {
            name: column.name.clone(),
            value_type: column.value_type,
            source: Source::parse(&column.from, column.value_type)
                .expect("a mapping was checked when it was made"),
            is_key: table.key.contains(&column.name),
        });
        let columns = columns.collect::<Vec<_>>();
        let name = quoted(&table.name);
        let all = list(columns.iter().map(|it| quoted(&it.name)));
        let values = list((1..=columns.len()).map(|nth| format!("?{nth}")));
        let insert = format!("INSERT INTO {name} ({all}) VALUES ({values})");
        Self {
            upsert: format!("{insert} ON CONFLICT DO {}", change(&columns)),
            insert: format!("{insert} ON CONFLICT DO NOTHING"),
            delete: format!("DELETE FROM {name} WHERE {}", is_row(&columns)),
            name: table.name.clone(),
            columns,
            rules: table.on.clone(),
        }
    }

    pub(crate) fn action(&self, stream: &str, event_type: &str) -> Option<Action> {
        let rule = self.rules.iter().find(|it| it.takes(stream, event_type));
        rule.map(|rule| rule.action)
    }
}

fn create_table(sql: &mut String, table: &Table) {
    let columns = table.columns.iter();
    let columns =
        list(columns.map(|it| format!("{} {}", quoted(&it.name), affinity(it.value_type))));
    let key = list(table.key.iter().map(|it| quoted(it)));
    let is_row_id = match table.key.as_slice() {
        [key] => table
            .columns
            .iter()
            .any(|it| it.name == *key && affinity(it.value_type) == "INTEGER"),
        _ => false,
    };
    // One tree for rows and key: the number of the row is the key, or there is none.
    let rowid = if is_row_id { "" } else { " WITHOUT ROWID" };
    let name = quoted(&table.name);
    let _ = write!(
        sql,
        "CREATE TABLE {name} ({columns}, PRIMARY KEY ({key})){rowid};"
    );
}

fn create_indexes(sql: &mut String, nth_table: usize, table: &Table) {
    for (nth, index) in table.indexes.iter().enumerate() {
        let name = quoted(&format!("_kimberlite_index_{nth_table}_{nth}"));
        let (table, columns) = (quoted(&table.name), list(index.iter().map(|it| quoted(it))));
        let _ = write!(sql, "CREATE INDEX {name} ON {table} ({columns});");
    }
}

/// What an upsert does to a row that is there.
fn change(columns: &[ColumnPlan]) -> String {
    let others = columns.iter().enumerate().filter(|(_, it)| !it.is_key);
    let flags = columns.len() + 1..;
    let sets = others.zip(flags).map(|((nth, column), flag)| {
        let name = quoted(&column.name);
        format!("{name} = iif(?{flag}, ?{}, {name})", nth + 1)
    });
    let sets = list(sets);
    if sets.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!("UPDATE SET {sets}")
    }
}

fn is_row(columns: &[ColumnPlan]) -> String {
    let keys = columns.iter().filter(|it| it.is_key).zip(1..);
    let conditions = keys.map(|(column, nth)| format!("{} = ?{nth}", quoted(&column.name)));
    conditions.collect::<Vec<_>>().join(" AND ")
}

fn affinity(value_type: ColumnType) -> &'static str {
    match value_type {
        ColumnType::Integer | ColumnType::Boolean => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Text | ColumnType::Json => "TEXT",
        ColumnType::Blob => "BLOB",
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
