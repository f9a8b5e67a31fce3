//! Differences on their way to a person or a program.

use std::io::{self, Write};

use mayfly_history::ColumnSpec;
use serde_json::{Map, Value, json};

use super::{
    Asked,
    compare::{Change, Identity, Row},
};
use crate::output::{Screen, escaped};

/// One line for each difference: `-` went, `+` came, `~` changed.
pub(super) fn lines(asked: &Asked<'_>, changes: &[Change], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        let (mark, colour, text) = match change {
            Change::Removed(row) => ('-', 31, all(&asked.columns, row)),
            Change::Added(row) => ('+', 32, all(&asked.columns, row)),
            Change::Changed { from, to } => ('~', 33, differing(&asked.columns, &asked.identity, from, to)),
        };
        if screen.colour {
            writeln!(out, "\u{1b}[{colour}m{mark} {text}\u{1b}[0m")?;
        } else {
            writeln!(out, "{mark} {text}")?;
        }
    }
    Ok(())
}

/// What is not empty.
fn all(columns: &[&ColumnSpec], row: &Row) -> String {
    let told = columns.iter().zip(row).filter(|(_, value)| !value.is_empty());
    told.map(|(column, value)| format!("{}={}", column.name, quoted(value))).collect::<Vec<_>>().join(" ")
}

/// By what the row is known, and what differs.
fn differing(columns: &[&ColumnSpec], identity: &Identity, from: &Row, to: &Row) -> String {
    let known_by = identity.names().iter().filter_map(|at| Some(format!("{}={}", columns.get(*at)?.name, quoted(to.get(*at)?))));
    let differs =
        columns.iter().zip(from.iter().zip(to)).enumerate().filter(|(at, (_, (from, to)))| from != to && !identity.passing.contains(at));
    let differs = differs.map(|(_, (column, (from, to)))| format!("{}: {} -> {}", column.name, quoted(from), quoted(to)));
    known_by.chain(differs).collect::<Vec<_>>().join(" ")
}

/// A value that ends where it seems to: values come from strangers.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
    escaped(&if plain { value.to_owned() } else { Value::from(value).to_string() }).into_owned()
}

/// One object: what was asked, and the changes, each with whole rows.
pub(super) fn json(asked: &Asked<'_>, changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    let object = |row: &Row| -> Value {
        let field = |(column, value): (&&ColumnSpec, &String)| (column.name.to_owned(), typed(column, value));
        Value::Object(asked.columns.iter().zip(row).map(field).collect::<Map<_, _>>())
    };
    let changes: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Removed(row) => json!({"change": "removed", "row": object(row)}),
            Change::Added(row) => json!({"change": "added", "row": object(row)}),
            Change::Changed { from, to } => json!({"change": "changed", "from": object(from), "row": object(to)}),
        })
        .collect();
    let whole = json!({
        "table": asked.table,
        "from_ns": asked.from,
        "to_ns": asked.to,
        "notes": asked.notes,
        "changes": changes,
    });
    writeln!(out, "{whole:#}")
}

fn typed(column: &ColumnSpec, value: &str) -> Value {
    if column.kind.is_int() { value.parse::<i64>().map_or(Value::Null, Value::from) } else { Value::from(value) }
}
