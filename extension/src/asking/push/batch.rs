//! What is sent at a time: events of all pushed tables of one store, in the order of their ids.

use std::{collections::BTreeMap, ops::ControlFlow};

use mayfly_history::{
    Cell, Eid, Nanos, TableSchema, chain, now,
    store::{Reader, StoreError},
};
use mayfly_tables::{Query, Rows, Table};

use super::envelope::Envelope;
use crate::delivery::{Due, Outbox};

/// Most events of one table in a batch.
const MOST_EVENTS: u32 = 500;
/// Most bytes of the lines of one table in a batch.
const MOST_BYTES: usize = 8 << 20;

/// An event, ready to be sent.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) eid: Eid,
    pub(super) time_ns: Nanos,
    pub(super) table: &'static str,
    pub(super) line: String,
}

/// Events of several tables, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Ready>,
    /// Where each table is once they are sent.
    pub(super) ends: BTreeMap<&'static str, Eid>,
}

impl Batch {
    /// Whether there is anything to send.
    pub(super) fn is_due(tables: &[&'static dyn Table], store: &Reader, outbox: &mut Outbox<'_>) -> Result<bool, String> {
        Ok(!due(tables, store, outbox, 1)?.is_empty())
    }

    /// The next events. What is in a store lies before what is not yet in it, whatever its table: nothing overtakes.
    pub(super) fn next(
        tables: &[&'static dyn Table],
        store: &Reader,
        outbox: &mut Outbox<'_>,
        envelope: &Envelope,
    ) -> Result<Self, String> {
        loop {
            let due = due(tables, store, outbox, MOST_EVENTS)?;
            let batch = Self::read(&due, store, envelope)?;
            // What retention takes while we read would be neither sent nor told of.
            let dropped = due.iter().map(|(table, due)| Ok(store.dropped(table.schema())? != due.dropped));
            match dropped.collect::<Result<Vec<_>, StoreError>>() {
                Ok(dropped) if dropped.contains(&true) => {}
                Ok(_) => return Ok(batch),
                Err(error) => return Err(chain(&error)),
            }
        }
    }

    fn read(due: &[(&'static dyn Table, Due)], store: &Reader, envelope: &Envelope) -> Result<Self, String> {
        // Where a table has more than fits, nothing behind its last event is sent yet; nor is what is recorded while we look.
        let cut = due.iter().filter(|(_, due)| due.cut).map(|(_, due)| due.upto).min();
        let Some(mut upto) = cut.or_else(|| due.iter().map(|(_, due)| due.upto).max()) else { return Ok(Self::default()) };
        let mut events = Vec::new();
        for (table, due) in due {
            let mut page = Page { schema: table.schema(), envelope, batch: due.batch, now: now(), bytes: 0, events: Vec::new() };
            let query = Query { after: due.after, upto: Some(upto), ..Query::default() };
            table.generate(store, &query, &mut page).map_err(|error| chain(&error))?;
            if page.bytes > MOST_BYTES
                && let Some(last) = page.events.last()
            {
                upto = last.eid;
            }
            events.append(&mut page.events);
        }
        events.retain(|event| event.eid <= upto);
        events.sort_by_key(|event| event.eid);
        let mut ends = ends(&events);
        for (table, due) in due {
            // Where nothing could be read of what is there, it is not looked at for ever.
            let end = upto.min(due.upto);
            if Some(end) > due.after {
                let known = ends.entry(table.schema().name).or_insert(end);
                *known = end.max(*known);
            }
        }
        Ok(Self { events, ends })
    }
}

fn due(
    tables: &[&'static dyn Table],
    store: &Reader,
    outbox: &mut Outbox<'_>,
    most: u32,
) -> Result<Vec<(&'static dyn Table, Due)>, String> {
    let mut found = Vec::new();
    for &table in tables {
        let due = outbox.due(store, table.schema(), most).map_err(|error| chain(&error))?;
        found.extend(due.map(|due| (table, due)));
    }
    Ok(found)
}

/// The events of one table.
struct Page<'e> {
    schema: &'static TableSchema,
    envelope: &'e Envelope,
    batch: i64,
    now: Nanos,
    bytes: usize,
    events: Vec<Ready>,
}

impl Rows for Page<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        // `time`, `time_ns` and `eid` begin the row of every event table.
        let (Some(Cell::Int(time_ns)), Some(Cell::Text(eid))) = (cells.get(1), cells.get(2)) else { return ControlFlow::Continue(()) };
        let Ok(eid) = eid.parse() else { return ControlFlow::Continue(()) };
        let columns = self.envelope.columns(self.schema, cells);
        let line = self.envelope.line(self.schema.name, self.batch, self.now, &columns);
        self.bytes += line.len();
        self.events.push(Ready { eid, time_ns: *time_ns, table: self.schema.name, line });
        if self.bytes > MOST_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The newest of these events of each table.
pub(super) fn ends(events: &[Ready]) -> BTreeMap<&'static str, Eid> {
    events.iter().map(|event| (event.table, event.eid)).collect()
}
