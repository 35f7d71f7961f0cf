//! What a mapping has to keep to.

use super::source::Refused;
use super::{Column, ColumnType, MappingError, Source, Table, TableError};

const TABLES_MAX: usize = 64;
const COLUMNS_MAX: usize = 200;
const INDEXES_MAX: usize = 32;
const RULES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;

pub(super) fn check(tables: &[Table]) -> Result<(), MappingError> {
    if tables.is_empty() {
        return Err(MappingError::NoTable);
    }
    if tables.len() > TABLES_MAX {
        return Err(MappingError::TooManyTables {
            count: tables.len(),
            count_max: TABLES_MAX,
        });
    }
    for (nth, table) in tables.iter().enumerate() {
        let is_twice = tables
            .iter()
            .take(nth)
            .any(|it| is_same(&it.name, &table.name));
        let twice = if is_twice {
            Err(TableError::Twice)
        } else {
            Ok(())
        };
        twice
            .and_then(|()| check_table(table))
            .map_err(|source| MappingError::Table {
                table: table.name.clone(),
                source,
            })?;
    }
    Ok(())
}

fn check_table(table: &Table) -> Result<(), TableError> {
    check_name(&table.name)?;
    let lower = table.name.to_ascii_lowercase();
    if lower.starts_with("sqlite_") || lower.starts_with("_kimberlite") {
        return Err(TableError::Taken);
    }
    at_most("columns", table.columns.len(), COLUMNS_MAX)?;
    at_most("indexes", table.indexes.len(), INDEXES_MAX)?;
    at_most("rules", table.on.len(), RULES_MAX)?;
    for (nth, column) in table.columns.iter().enumerate() {
        check_column(column)?;
        let mut before = table.columns.iter().take(nth);
        if before.any(|it| is_same(&it.name, &column.name)) {
            let column = column.name.clone();
            return Err(TableError::ColumnTwice { column });
        }
    }
    if table.key.is_empty() {
        return Err(TableError::NoKey);
    }
    for column in check_names("key", &table.key, table)? {
        use ColumnType::{Boolean, Integer, Text};
        if !matches!(column.value_type, Integer | Text | Boolean) {
            let column = column.name.clone();
            return Err(TableError::KeyType { column });
        }
    }
    for index in &table.indexes {
        check_names("index", index, table)?;
    }
    if table.on.is_empty() {
        return Err(TableError::NoRule);
    }
    Ok(())
}

fn check_column(column: &Column) -> Result<(), TableError> {
    check_name(&column.name)?;
    let refused = Source::parse(&column.from, column.value_type).err();
    let (name, from) = (&column.name, &column.from);
    match refused {
        None => Ok(()),
        Some(Refused::Form) => Err(TableError::From {
            column: name.clone(),
            from: from.clone(),
        }),
        Some(Refused::Type) => Err(TableError::FromType {
            column: name.clone(),
            from: from.clone(),
        }),
    }
}

/// Returns the columns that a key or an index names.
fn check_names<'a>(
    what: &'static str,
    names: &[String],
    table: &'a Table,
) -> Result<Vec<&'a Column>, TableError> {
    let is_twice = |(nth, name): (usize, &String)| names.iter().take(nth).any(|it| it == name);
    if names.is_empty() || names.iter().enumerate().any(is_twice) {
        return Err(TableError::Columns { what });
    }
    let find = |name: &String| {
        let column = table.columns.iter().find(|it| it.name == *name);
        column.ok_or_else(|| TableError::NoColumn {
            what,
            column: name.clone(),
        })
    };
    names.iter().map(find).collect()
}

fn check_name(name: &str) -> Result<(), TableError> {
    let is_long = name.is_empty() || name.len() > NAME_BYTES_MAX;
    if is_long || name.chars().any(char::is_control) {
        let name = name.to_owned();
        return Err(TableError::Name { name });
    }
    Ok(())
}

fn at_most(what: &'static str, count: usize, count_max: usize) -> Result<(), TableError> {
    if count <= count_max {
        return Ok(());
    }
    Err(TableError::TooMany {
        what,
        count,
        count_max,
    })
}

/// Whether `SQLite` takes two names for one.
fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
