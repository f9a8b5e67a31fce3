//! osquery's query context: the JSON of a `generate` request becomes a [`Query`].

use mayfly_history::TableSchema;
use mayfly_tables::{Constraint, Op, Query};
use serde::Deserialize;
use serde_json::Value;

/// The context is not what osquery sends. Unknown members, columns and operators are not errors: they are left out, since
/// SQLite checks every row again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the query context of {table}")]
pub struct ContextError {
    table: &'static str,
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    constraints: Vec<Column>,
    #[serde(default, rename = "colsUsed")]
    columns_used: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Column {
    #[serde(default)]
    name: String,
    /// A list; core of old wrote `""` for an empty one.
    #[serde(default)]
    list: Value,
}

/// Reads the context of a query of `schema`'s table; `None`: all rows, all columns.
pub fn parse(schema: &TableSchema, context: Option<&[u8]>) -> Result<Query, ContextError> {
    let mut query = Query::default();
    let Some(json) = context else { return Ok(query) };
    let context: Context = serde_json::from_slice(json).map_err(|source| ContextError { table: schema.name, source })?;
    for column in &context.constraints {
        let Some(position) = schema.position(&column.name) else { continue };
        let list = column.list.as_array().map(Vec::as_slice).unwrap_or_default();
        query.constraints.extend(list.iter().filter_map(|constraint| {
            let op = operator(number(constraint.get("op")?)?)?;
            Some(Constraint { column: position, op, value: text(constraint.get("expr")?)? })
        }));
    }
    if let Some(used) = context.columns_used {
        query.wanted = schema.columns.iter().map(|c| used.iter().any(|name| name == c.name)).collect();
    }
    Ok(query)
}

/// The operators that narrow. The others (LIKE, NE, ISNULL, …) SQLite checks; 73 and 74, LIMIT and OFFSET, arrive on
/// whichever column is first and say nothing about it.
fn operator(number: u64) -> Option<Op> {
    [Op::Equals, Op::GreaterThan, Op::LessThanOrEquals, Op::LessThan, Op::GreaterThanOrEquals].into_iter().find(|op| *op as u64 == number)
}

/// osquery writes a number; as text it means the same.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// osquery writes a string; a number means its text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mayfly_history::{EventTable, bigint, text};
    use proptest::prelude::*;

    use super::*;

    static EVENTS: EventTable<()> = EventTable {
        name: "a_events",
        doc: "",
        columns: &[text("container_id", |()| None, "").index(), bigint("pid", |()| None, "")],
        examples: &[],
    };

    /// As seen from a real osqueryd, for `SELECT time FROM a_events WHERE container_id IN ('a', 'b') AND time > 5 LIMIT 9`.
    const SEEN: &str = r#"{"constraints":[
        {"name":"consumer","list":[],"affinity":"TEXT"},
        {"name":"container_id","list":[{"op":2,"expr":"a"},{"op":2,"expr":"b"}],"affinity":"TEXT"},
        {"name":"pid","list":[{"op":68,"expr":"7"}],"affinity":"BIGINT"},
        {"name":"time","list":[{"op":4,"expr":"5"},{"op":73,"expr":"9"}],"affinity":"BIGINT"}],
        "colsUsed":["container_id","time"],"colsUsedBitset":17}"#;

    #[test]
    fn keeps_the_operators_that_narrow_and_ignores_limit() {
        let schema = EVENTS.schema();
        let query = parse(&schema, Some(SEEN.as_bytes())).unwrap();
        let seen: Vec<_> = query.constraints.iter().map(|c| (schema.columns[c.column].name, c.op, c.value.as_str())).collect();
        assert_eq!(seen, [("container_id", Op::Equals, "a"), ("container_id", Op::Equals, "b"), ("time", Op::GreaterThan, "5")]);
        let wanted: Vec<_> = schema.columns.iter().zip(&query.wanted).filter(|(_, w)| **w).map(|(c, _)| c.name).collect();
        assert_eq!(wanted, ["time", "container_id"]);
    }

    #[test]
    fn without_a_context_everything_is_asked_for() {
        let query = parse(&EVENTS.schema(), None).unwrap();
        assert!(query.constraints.is_empty() && query.wanted.is_empty());
        let query = parse(&EVENTS.schema(), Some(b"{}")).unwrap();
        assert!(query.constraints.is_empty() && query.wanted.is_empty());
    }

    #[test]
    fn takes_numbers_for_texts_and_texts_for_numbers() {
        let json =
            br#"{"constraints":[{"name":"pid","list":[{"op":"2","expr":12},{"op":2},{"expr":"1"},7]},{"name":"time","list":""},{}]}"#;
        let query = parse(&EVENTS.schema(), Some(json)).unwrap();
        assert_eq!(query.constraints.len(), 1);
        assert_eq!(query.constraints[0].value, "12");
    }

    #[test]
    fn refuses_what_is_not_a_context() {
        let error = parse(&EVENTS.schema(), Some(b"[1")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the query context of a_events");
        let deep = "[".repeat(100_000);
        assert!(parse(&EVENTS.schema(), Some(deep.as_bytes())).is_err());
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&EVENTS.schema(), Some(&bytes));
        }
    }
}
