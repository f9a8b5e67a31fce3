//! Claims about the store as a whole; what one module promises is tested in it.

mod age;
mod crash;
mod damage;
mod full_disk;
mod generations;
mod histories;
mod idle;
mod layouts;
mod model;

use std::{ops::ControlFlow, path::Path, time::Instant};

use tempfile::TempDir;

use super::{EventLog, EventScan, Opened, Reader, RowBuf, Scanned, StoreOptions, Writer};
use crate::{
    cell::Cell,
    eid::Eid,
    table::{EventTable, TableSchema, bigint, text},
    time::Nanos,
};

/// A small record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Thing {
    pub(super) id: String,
    pub(super) number: Option<i64>,
    pub(super) note: Option<String>,
}

pub(super) static THINGS: EventTable<Thing> = EventTable {
    name: "thing_events",
    doc: "What happened to things.",
    columns: &[
        text("id", |t: &Thing| Some((&*t.id).into()), "Which thing.").index(),
        bigint("number", |t: &Thing| t.number, "A number.").index(),
        text("note", |t| t.note.as_deref().map(Into::into), "A note."),
    ],
    examples: &[],
};

/// A record and its place, as a scan gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) eid: Eid,
    pub(super) time_ns: Nanos,
    pub(super) thing: Thing,
}

pub(super) fn thing(id: impl Into<String>, number: i64) -> Thing {
    Thing { id: id.into(), number: Some(number), note: None }
}

/// A store in a directory of its own.
pub(super) struct Store {
    pub(super) dir: TempDir,
    pub(super) writer: Writer,
    pub(super) log: EventLog,
}

impl Store {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let Opened { mut writer, .. } = Writer::open(dir.path(), &StoreOptions::default()).unwrap();
        let log = writer.events(&THINGS.schema()).unwrap();
        Self { dir, writer, log }
    }

    pub(super) fn reopen(self) -> Self {
        self.reopen_with(&StoreOptions::default())
    }

    pub(super) fn reopen_with(self, options: &StoreOptions) -> Self {
        let Self { dir, writer, .. } = self;
        drop(writer);
        let Opened { mut writer, .. } = Writer::open(dir.path(), options).unwrap();
        let log = writer.events(&THINGS.schema()).unwrap();
        Self { dir, writer, log }
    }

    /// Appends things in one transaction.
    pub(super) fn append(&mut self, things: &[(Nanos, Thing)]) -> Vec<Eid> {
        append(&mut self.writer, self.log, things)
    }

    /// Seals all that waits, however little.
    pub(super) fn seal(&mut self) {
        while self.writer.logs[self.log.0].rows > 0 {
            super::maintain::seal(&mut self.writer, self.log.0).unwrap();
        }
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(self.dir.path()).unwrap()
    }

    pub(super) fn scan(&self, scan: &EventScan) -> (Vec<Seen>, Scanned) {
        seen(&self.reader(), &THINGS.schema(), scan)
    }

    pub(super) fn all(&self) -> Vec<Seen> {
        self.scan(&EventScan::default()).0
    }

    /// Does all that is due now.
    pub(super) fn maintain(&mut self) {
        while self.writer.maintain().unwrap() <= Instant::now() {}
    }
}

pub(super) fn append(writer: &mut Writer, log: EventLog, things: &[(Nanos, Thing)]) -> Vec<Eid> {
    let mut row = RowBuf::default();
    let mut tx = writer.begin().unwrap();
    let eids = things
        .iter()
        .map(|(time_ns, thing)| {
            row.encode(THINGS.columns, thing);
            tx.append(log, *time_ns, &row).unwrap()
        })
        .collect();
    tx.commit().unwrap();
    eids
}

pub(super) fn seen(reader: &Reader, table: &TableSchema, scan: &EventScan) -> (Vec<Seen>, Scanned) {
    let mut found = Vec::new();
    let scanned = reader
        .events(table, scan, &mut |row| {
            let text = |i: usize| match row.cells[i] {
                Cell::Text(text) => Some(text.to_owned()),
                _ => None,
            };
            let number = if let Cell::Int(number) = row.cells[1] { Some(number) } else { None };
            found.push(Seen {
                eid: row.eid,
                time_ns: row.time_ns,
                thing: Thing { id: text(0).unwrap_or_default(), number, note: text(2) },
            });
            ControlFlow::Continue(())
        })
        .unwrap();
    (found, scanned)
}

pub(super) fn open_again(dir: &Path) -> Opened {
    Writer::open(dir, &StoreOptions::default()).unwrap()
}
