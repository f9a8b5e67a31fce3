//! What a table answers when it is asked directly, as the extension asks.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::ops::ControlFlow;

use mayfly_history::{Cell, Eid, store::Reader};
use mayfly_tables::{Answered, Constraint, Op, Query, Rows, TableError, find};

#[path = "../cases/fixture.rs"]
mod fixture;

/// Rows as text, cells joined by `|`; stops after `most`.
struct Texts {
    rows: Vec<String>,
    most: usize,
}

impl Rows for Texts {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let text = |cell: &Cell<'_>| match cell {
            Cell::Null => String::new(),
            Cell::Int(int) => int.to_string(),
            Cell::Text(text) => (*text).to_owned(),
        };
        self.rows.push(cells.iter().map(text).collect::<Vec<_>>().join("|"));
        if self.rows.len() == self.most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Asks `table` for `columns`, with constraints of `=`.
fn ask(table: &str, columns: &[&str], equal: &[(&str, &str)], query: Query, most: usize) -> Result<(Vec<String>, Answered), TableError> {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path()).unwrap();
    let table = find(table).unwrap();
    let schema = table.schema();
    let wanted = schema.columns.iter().map(|c| columns.contains(&c.name)).collect();
    let constraint =
        |&(name, value): &(&str, &str)| Constraint { column: schema.position(name).unwrap(), op: Op::Equals, value: value.into() };
    let query = Query { wanted, constraints: equal.iter().map(constraint).collect(), ..query };
    let mut texts = Texts { rows: Vec::new(), most };
    let answered = table.generate(&Reader::open(dir.path()).unwrap(), &query, &mut texts)?;
    let of = |row: &String| {
        let cells: Vec<_> = row.split('|').collect();
        assert_eq!(cells.len(), schema.columns.len(), "a cell for each column");
        columns.iter().map(|name| cells[schema.position(name).unwrap()]).collect::<Vec<_>>().join("|")
    };
    Ok((texts.rows.iter().map(of).collect(), answered))
}

fn eids() -> Vec<Eid> {
    let (rows, _) = ask("container_lifecycle_events", &["eid"], &[], Query::default(), usize::MAX).unwrap();
    rows.iter().map(|eid| eid.parse().unwrap()).collect()
}

#[test]
fn a_batch_is_exclusive_below_and_inclusive_above_and_only_narrowed() {
    let sequence = |eid: Eid| eid.sequence;
    let all: Vec<_> = eids().into_iter().map(sequence).collect();
    assert_eq!(all, (1..=11).collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path()).unwrap();
    let (table, reader) = (find("container_lifecycle_events").unwrap(), Reader::open(dir.path()).unwrap());
    let count = |after: u64, upto: u64, equal: &[u64]| {
        // The store of this test has a generation of its own.
        let generation = reader.bounds(table.schema()).unwrap().unwrap().0.generation;
        let eid = |sequence| Eid { generation, sequence };
        let constraints = equal.iter().map(|&s| Constraint { column: 2, op: Op::Equals, value: eid(s).to_string() }).collect();
        let query = Query { after: Some(eid(after)), upto: Some(eid(upto)), constraints, ..Query::default() };
        let mut texts = Texts { rows: Vec::new(), most: usize::MAX };
        table.generate(&reader, &query, &mut texts).unwrap().rows
    };
    assert_eq!(count(3, 5, &[]), 2);
    assert_eq!(count(3, 3, &[]), 0);
    assert_eq!(count(3, 5, &[4]), 1);
    assert_eq!(count(3, 5, &[2]), 0, "an id outside of the batch is not delivered");
    assert_eq!(count(0, 11, &[2, 4]), 3, "the range around both; SQLite leaves out what lies between");
}

#[test]
fn of_too_many_rows_the_newest_are_given_and_that_is_said() {
    let few = Query { max_rows: Some(2), ..Query::default() };
    let (rows, answered) = ask("container_lifecycle_events", &["action"], &[], few.clone(), usize::MAX).unwrap();
    assert_eq!((rows, answered), (vec!["die".to_owned(), "start".to_owned()], Answered { rows: 2, cut: true }));
    let (_, answered) = ask("recorder_gaps", &["cause"], &[], Query { max_rows: Some(1), ..Query::default() }, usize::MAX).unwrap();
    assert_eq!(answered, Answered { rows: 1, cut: true });
    let instants = [("as_of", "4000000005"), ("as_of", "4000000022")];
    let (rows, answered) = ask("container_history", &["as_of"], &instants, few, usize::MAX).unwrap();
    assert_eq!((rows, answered.cut), (vec!["4000000005".to_owned(), "4000000022".to_owned()], true));
}

#[test]
fn a_reader_that_stops_gets_no_more() {
    for (table, equal) in [
        ("container_lifecycle_events", &[][..]),
        ("container_history", &[("as_of", "4000000020"), ("as_of", "4000000021")]),
        ("recorder_gaps", &[("as_of", "1"), ("as_of", "2")]),
    ] {
        let (rows, _) = ask(table, &[], equal, Query::default(), 1).unwrap();
        assert_eq!(rows.len(), 1, "{table}");
    }
}

#[test]
fn parameters_are_echoed_as_they_were_asked_for() {
    let (rows, _) = ask("container_history", &["as_of", "name"], &[("as_of", "4000000005.0")], Query::default(), usize::MAX).unwrap();
    assert_eq!(rows, ["4000000005.0|db"]);
    let (rows, _) = ask("container_image_events", &["consumer"], &[("consumer", "siem@1")], Query::default(), usize::MAX).unwrap();
    assert_eq!(rows, ["siem@1"]);
    let twice = ask("container_image_events", &["consumer"], &[("consumer", "a"), ("consumer", "b")], Query::default(), usize::MAX);
    assert!(matches!(twice, Err(TableError::Parameter(_))));
}

#[test]
fn a_table_without_a_store_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    for table in mayfly_tables::TABLES {
        let mut texts = Texts { rows: Vec::new(), most: usize::MAX };
        table.generate(&Reader::open(dir.path()).unwrap(), &Query::default(), &mut texts).unwrap();
        let expected = usize::from(table.schema().name == "recorder_info");
        assert_eq!(texts.rows.len(), expected, "{}", table.schema().name);
    }
}
