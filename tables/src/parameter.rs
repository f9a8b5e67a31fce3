//! Columns that the caller sets: their values, and the error where one was meant but did not arrive.

use mayfly_history::TableSchema;

use crate::query::{Query, TableError};

/// The values asked for, each once. Empty: the parameter is not used.
///
/// A planner may put the table on the outer side of a join; then it reads the parameter, but has no value to pass. An
/// answer without rows would look like "nothing was there", so this is an error that shows the form that works.
pub(crate) fn values<'q>(schema: &TableSchema, name: &str, query: &'q Query) -> Result<Vec<&'q str>, TableError> {
    let Some(column) = schema.position(name) else { return Ok(Vec::new()) };
    let values = query.equals(column);
    if values.is_empty() && query.wanted.get(column) == Some(&true) {
        return Err(TableError::Parameter(missing(schema, name)));
    }
    Ok(values)
}

fn missing(schema: &TableSchema, name: &str) -> String {
    let table = schema.name;
    if name == "consumer" {
        return format!("{table}.consumer is used, but no value reached the table. Give one: WHERE consumer = '*'");
    }
    let key = schema.columns.first().map_or("", |c| c.name);
    format!(
        "{table}.{name} is used, but no value reached the table. Give one (WHERE {name} = '2025-01-31T10:00:00Z') or, in a join, put {table} on \
         the inner side: FROM x CROSS JOIN {table} h ON h.{key} = x.{key} AND h.{name} = x.time_ns (or LEFT JOIN; x.time_ns must not be NULL)"
    )
}
