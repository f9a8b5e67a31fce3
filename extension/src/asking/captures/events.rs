//! Events of the recorder's store that tell of tables.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use mayfly_history::{
    Cell, Eid, Nanos, TableSchema,
    store::{EventScan, Limit, Reader, StoreError},
};

use super::map::{EVENTS, Events};

/// Events that are looked at before it is supposed that one of the rest tells, too.
const MOST: usize = 512;

/// How far the event tables were read.
#[derive(Debug)]
pub(super) struct Seen {
    store: Reader,
    newest: BTreeMap<&'static str, Option<Eid>>,
}

impl Seen {
    /// Begins with the next event.
    pub(super) fn from_now(state_dir: &Path) -> Result<Self, StoreError> {
        let mut seen = Self { store: Reader::open(state_dir)?, newest: BTreeMap::new() };
        seen.news()?;
        Ok(seen)
    }

    /// What tells something since the last call, and when its first event happened.
    pub(super) fn news(&mut self) -> Result<Vec<(&'static Events, Nanos)>, StoreError> {
        let mut news = Vec::new();
        for events in EVENTS {
            let Some(table) = mayfly_tables::find(events.table) else { continue };
            let newest = self.store.bounds(table.schema())?.map(|(newest, _)| newest);
            let Some(&seen) = self.newest.get(events.table) else {
                self.newest.insert(events.table, newest);
                continue;
            };
            if newest <= seen {
                continue;
            }
            if let Some(time_ns) = first_that_tells(&self.store, table.schema(), events, seen)? {
                news.push((events, time_ns));
            }
            self.newest.insert(events.table, newest);
        }
        Ok(news)
    }
}

/// The time of the first event after `seen` that tells something.
fn first_that_tells(store: &Reader, schema: &TableSchema, events: &Events, seen: Option<Eid>) -> Result<Option<Nanos>, StoreError> {
    let stored: Vec<_> = schema.stored().map(|column| column.name).collect();
    let looked_at: Vec<_> = events.only.iter().filter_map(|(name, value)| Some((stored.iter().position(|s| s == name)?, *value))).collect();
    let wanted = (0..stored.len()).map(|at| looked_at.iter().any(|(column, _)| *column == at)).collect();
    let scan = EventScan { after: seen, wanted, limit: Limit::Oldest(MOST), ..EventScan::default() };
    let mut found = None;
    let mut last = None;
    let scanned = store.events(schema, &scan, &mut |row| {
        last = Some(row.time_ns);
        let tells = looked_at.iter().all(|(column, value)| match row.cells.get(*column) {
            Some(Cell::Text(text)) => text == value,
            _ => value.is_empty(),
        });
        if !tells {
            return ControlFlow::Continue(());
        }
        found = last;
        ControlFlow::Break(())
    })?;
    Ok(found.or_else(|| last.filter(|_| scanned.cut)))
}
