//! A table that gains a column, or changes one, still reads what is older.

use std::ops::ControlFlow;

use super::{Store, Thing, open_again, thing};
use crate::{
    cell::Cell,
    store::{EventScan, RowBuf},
    table::{EventTable, bigint, text},
};

/// The table of a later version: a column in front, one gone, one of another type.
static LATER: EventTable<Thing> = EventTable {
    name: "thing_events",
    doc: "What happened to things.",
    columns: &[
        text("colour", |_| Some("red".into()), "New.").index(),
        text("id", |t: &Thing| Some((&*t.id).into()), "Which thing.").index(),
        text("number", |t| t.number.map(|n| n.to_string().into()), "It was a number once."),
        bigint("size", |_| Some(7), "New."),
    ],
    examples: &[],
};

#[test]
fn older_rows_and_blocks_are_read_by_the_names_of_their_columns() {
    let mut store = Store::new();
    store.append(&[(1, thing("sealed", 1))]);
    store.seal();
    store.append(&[(2, thing("tail", 2))]);
    let dir = store.dir;
    drop(store.writer);
    let mut writer = open_again(dir.path()).writer;
    let log = writer.events(&LATER.schema()).unwrap();
    let mut row = RowBuf::default();
    row.encode(LATER.columns, &thing("later", 3));
    let mut tx = writer.begin().unwrap();
    tx.append(log, 3, &row).unwrap();
    tx.commit().unwrap();

    let rows = |keys: Vec<(usize, Vec<String>)>| {
        let mut rows = Vec::new();
        let reader = crate::store::Reader::open(dir.path()).unwrap();
        let scan = EventScan { keys, ..EventScan::default() };
        reader
            .events(&LATER.schema(), &scan, &mut |row| {
                rows.push(format!("{:?}", row.cells));
                ControlFlow::Continue(())
            })
            .unwrap();
        rows
    };
    let older = |id| format!("{:?}", [Cell::Null, Cell::Text(id), Cell::Null, Cell::Null]);
    let expected =
        [older("sealed"), older("tail"), format!("{:?}", [Cell::Text("red"), Cell::Text("later"), Cell::Text("3"), Cell::Int(7)])];
    assert_eq!(rows(Vec::new()), expected);
    assert_eq!(rows(vec![(1, vec!["sealed".into()])]), expected[..1]);
    assert_eq!(rows(vec![(0, vec!["red".into()])]), expected[2..], "what has no such column does not match");

    // Rows of two layouts become two blocks, and nothing changes.
    while writer.logs[log.0].rows > 0 {
        super::super::maintain::seal(&mut writer, log.0).unwrap();
    }
    assert_eq!(rows(Vec::new()), expected);
    assert_eq!(rows(vec![(1, vec!["tail".into(), "later".into()])]), expected[1..]);
}
