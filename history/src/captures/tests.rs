use std::{ops::ControlFlow, sync::LazyLock};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    cell::ColumnType,
    table::{ColumnSpec, Role, TableKind},
};

/// `id`, which tells rows apart, and `value`.
static SCHEMA: LazyLock<TableSchema> = LazyLock::new(|| schema(&[("id", ColumnType::Integer), ("value", ColumnType::Text)]));

fn schema(columns: &[(&'static str, ColumnType)]) -> TableSchema {
    let column = |(at, (name, kind)): (usize, &(&'static str, ColumnType))| {
        let role = if at == 0 { Role::Index } else { Role::Plain };
        ColumnSpec { stored: true, ..ColumnSpec::own(name, *kind, role, false, "") }
    };
    let columns = columns.iter().enumerate().map(column).chain(ColumnSpec::of_history()).collect();
    TableSchema { name: "things_history", doc: "", kind: TableKind::History, columns, examples: &[] }
}

struct Bench {
    dir: TempDir,
    captures: Captures,
}

impl Bench {
    fn new(identity: &[usize]) -> Self {
        let dir = TempDir::new().unwrap();
        let captures = open(dir.path(), identity);
        Self { dir, captures }
    }

    fn take(&mut self, rows: &[(i64, &str)], taken_ns: Nanos) -> Difference {
        let rows: Vec<Row> = rows.iter().map(|(id, value)| vec![id.to_string(), (*value).to_owned()]).collect();
        self.captures.capture("things_history", &Capture { rows: &rows, taken_ns, evidence: "interval", was_blind: false }).unwrap()
    }

    /// What held at that instant, sorted.
    fn as_of(&self, at_ns: Nanos) -> Vec<(i64, String)> {
        let mut rows = Vec::new();
        let scan = IntervalScan { as_of: Some(at_ns), ..IntervalScan::default() };
        let mut visit = |row: &crate::store::IntervalRow<'_>| {
            if let [Cell::Int(id), Cell::Text(value), ..] = row.cells {
                rows.push((*id, (*value).to_owned()));
            }
            ControlFlow::Continue(())
        };
        Reader::open(self.dir.path()).unwrap().intervals(&SCHEMA, &scan, &mut visit).unwrap();
        rows.sort();
        rows
    }
}

fn open(dir: &Path, identity: &[usize]) -> Captures {
    let (mut captures, _) = Captures::open(dir, &StoreOptions::default(), Redaction::default()).unwrap();
    captures.follow(&SCHEMA, identity, &[]).unwrap();
    captures
}

#[test]
fn what_did_not_change_costs_nothing_also_after_a_restart() {
    let mut bench = Bench::new(&[0]);
    assert_eq!(bench.take(&[(1, "a"), (2, "b")], 10), Difference { began: 2, ended: 0 });
    assert_eq!(bench.take(&[(2, "b"), (1, "a")], 20), Difference::default());
    let Bench { dir, captures } = bench;
    drop(captures);
    let captures = open(dir.path(), &[0]);
    let mut bench = Bench { dir, captures };
    assert_eq!(bench.take(&[(1, "a"), (2, "c")], 30), Difference { began: 1, ended: 1 });
    assert_eq!(bench.as_of(29), [(1, "a".into()), (2, "b".into())]);
    assert_eq!(bench.as_of(30), [(1, "a".into()), (2, "c".into())]);
}

#[test]
fn a_damaged_store_is_begun_anew_with_all_that_holds() {
    let mut bench = Bench::new(&[]);
    bench.take(&[(1, "a")], 10);
    bench.captures.writer = None;
    std::fs::write(bench.dir.path().join("history.db"), vec![7; 8192]).unwrap();
    for journal in ["history.db-wal", "history.db-shm"] {
        let _ = std::fs::remove_file(bench.dir.path().join(journal));
    }
    assert_eq!(bench.take(&[(1, "a")], 20), Difference { began: 1, ended: 0 });
    assert_eq!(bench.as_of(20), [(1, "a".into())]);
}

#[test]
fn secrets_are_dropped_before_a_row_is_kept() {
    let mut bench = Bench::new(&[]);
    bench.take(&[(1, "mysql --password=hunter2 --user=ann")], 10);
    assert_eq!(bench.as_of(10), [(1, "mysql --password=[redacted] --user=ann".into())]);
}

#[test]
fn the_value_of_a_pair_is_dropped_by_its_key() {
    static PAIRS: LazyLock<TableSchema> = LazyLock::new(|| schema(&[("key", ColumnType::Text), ("value", ColumnType::Text)]));
    let redaction = Redaction::default();
    let kept = |key: &str, value: &str| cells(&PAIRS, &[key.to_owned(), value.to_owned()], &redaction)[1].clone();
    assert_eq!(kept("DB_PASSWORD", "hunter2"), Value::Text("[redacted]".into()));
    assert_eq!(kept("DB_USER", "ann"), Value::Text("ann".into()));
}

#[test]
fn a_table_whose_columns_changed_goes_on_with_the_rows_that_held() {
    static REORDERED: LazyLock<TableSchema> =
        LazyLock::new(|| schema(&[("value", ColumnType::Text), ("id", ColumnType::Integer), ("extra", ColumnType::Text)]));
    let mut bench = Bench::new(&[0]);
    bench.take(&[(1, "a"), (2, "b")], 10);
    bench.captures.follow(&REORDERED, &[1], &[]).unwrap();
    let rows = [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()]];
    let capture = Capture { rows: &rows, taken_ns: 20, evidence: "interval", was_blind: false };
    assert_eq!(bench.captures.capture("things_history", &capture).unwrap(), Difference { began: 1, ended: 2 });
    assert_eq!(bench.as_of(15), [(1, "a".into()), (2, "b".into())]);
    assert_eq!(bench.as_of(20), [(1, "a".into())], "what was stored under the old first column ended");
}

#[test]
fn a_change_of_a_counter_is_no_change() {
    let mut bench = Bench::new(&[0]);
    bench.captures.follow(&SCHEMA, &[0], &[1]).unwrap();
    assert_eq!(bench.take(&[(1, "a")], 10), Difference { began: 1, ended: 0 });
    assert_eq!(bench.take(&[(1, "b")], 20), Difference::default());
    assert_eq!(bench.as_of(20), [(1, "a".into())], "it keeps the value with which the row began");
}

#[test]
fn a_clock_that_was_set_back_overwrites_no_other_row() {
    let mut bench = Bench::new(&[0]);
    bench.take(&[(1, "a"), (1, "b")], 100);
    bench.take(&[(1, "b"), (1, "c")], 50);
    assert_eq!(bench.as_of(100), [(1, "b".into()), (1, "c".into())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// The law: as of any time the history has what the last capture before it had, whatever tells rows apart, and with rows that are there twice.
    #[test]
    fn as_of_any_time_holds_what_was_captured_last(
        by_id: bool,
        captures in prop::collection::vec(prop::collection::vec((0i64..4, "[ab]"), 0..6), 1..8),
        reopened in 0usize..8,
    ) {
        let identity: &[usize] = if by_id { &[0] } else { &[] };
        let mut bench = Bench::new(identity);
        for (at, rows) in captures.iter().enumerate() {
            if at == reopened {
                let Bench { dir, captures } = bench;
                drop(captures);
                let captures = open(dir.path(), identity);
                bench = Bench { dir, captures };
            }
            let rows: Vec<_> = rows.iter().map(|(id, value)| (*id, value.as_str())).collect();
            bench.take(&rows, i64::try_from(at).unwrap() * 10);
        }
        for (at, rows) in captures.iter().enumerate() {
            let mut rows = rows.clone();
            rows.sort();
            prop_assert_eq!(&bench.as_of(i64::try_from(at).unwrap() * 10 + 5), &rows);
        }
    }
}
