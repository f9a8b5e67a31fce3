//! The tables that the recorder writes, and where they are in the store.

use crate::{
    store::{EventLog, IntervalLog, StoreError, Writer},
    table::{TableKind, TableSchema},
};

/// One of the recorder's tables; stays the same when the store is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableId(usize);

/// The tables of the container's ledger, which is no lane.
pub(super) const CONTAINER_EVENTS: TableId = TableId(0);
pub(super) const CONTAINER_HISTORY: TableId = TableId(1);

/// All tables, in the order in which they were registered.
#[derive(Debug)]
pub(super) struct TableList(Vec<TableSchema>);

impl TableList {
    /// `container_lifecycle_events` and `container_history`; lanes add theirs.
    pub(super) fn new(events: TableSchema, history: TableSchema) -> Self {
        Self(vec![events, history])
    }

    pub(super) fn add(&mut self, schema: TableSchema) -> TableId {
        self.0.push(schema);
        TableId(self.0.len() - 1)
    }

    /// Makes each table in the store, where it is not there.
    pub(super) fn open(&self, writer: &mut Writer) -> Result<Logs, StoreError> {
        let open = |schema: &TableSchema| {
            let log = match schema.kind {
                TableKind::History => Log::History(writer.history(schema)?),
                TableKind::Events | TableKind::Live => Log::Events(writer.events(schema)?),
            };
            Ok((schema.name, log))
        };
        self.0.iter().map(open).collect::<Result<_, _>>().map(Logs)
    }
}

#[derive(Clone, Copy, Debug)]
enum Log {
    Events(EventLog),
    History(IntervalLog),
}

/// Where each table is in one store.
#[derive(Debug)]
pub(super) struct Logs(Vec<(&'static str, Log)>);

impl Logs {
    /// What the table is called.
    pub(super) fn name(&self, table: TableId) -> &'static str {
        self.0[table.0].0
    }

    /// Those that keep intervals.
    pub(super) fn histories(&self) -> impl Iterator<Item = TableId> {
        self.0.iter().enumerate().filter(|(_, (_, log))| matches!(log, Log::History(_))).map(|(at, _)| TableId(at))
    }

    pub(super) fn events(&self, table: TableId) -> EventLog {
        match self.0[table.0].1 {
            Log::Events(log) => log,
            Log::History(_) => unreachable!("a lane of events registers a table of events"),
        }
    }

    pub(super) fn history(&self, table: TableId) -> IntervalLog {
        match self.0[table.0].1 {
            Log::History(log) => log,
            Log::Events(_) => unreachable!("a timeline registers a history"),
        }
    }
}
