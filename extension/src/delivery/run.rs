//! What delivery asks of others: which query runs (osquery), and which events there are (the store).

use std::ops::ControlFlow;

use mayfly_history::{
    Eid, TableSchema,
    store::{EventScan, Limit, Reader, StoreError},
};

use super::decide::{Log, Waiting};
use crate::manager::{Manager, ManagerError};

/// A scheduled query that runs now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    pub query: String,
    /// The second at which it began.
    pub timestamp: String,
    /// How often osquery has taken results of it; empty before the first time.
    pub counter: String,
}

/// Who knows what runs.
pub trait Schedule {
    /// The scheduled query that runs now; `None`: the asker is not osquery's schedule.
    fn running(&self) -> Result<Option<Running>, ManagerError>;
}

impl Schedule for Manager {
    fn running(&self) -> Result<Option<Running>, ManagerError> {
        let Some(query) = self.stored("configurations", "executing_query")?.filter(|name| !name.is_empty()) else { return Ok(None) };
        let timestamp = self.stored("configurations", &format!("timestamp.{query}"))?.unwrap_or_default();
        let counter = self.stored("queries", &format!("{query}counter"))?.unwrap_or_default();
        Ok(Some(Running { query, timestamp, counter }))
    }
}

/// The events of one table of the store.
#[derive(Debug)]
pub(super) struct StoreLog<'s> {
    store: &'s Reader,
    schema: &'s TableSchema,
}

impl<'s> StoreLog<'s> {
    pub(super) fn new(store: &'s Reader, schema: &'s TableSchema) -> Self {
        Self { store, schema }
    }
}

impl Log for StoreLog<'_> {
    type Error = StoreError;

    fn nth_after(&self, after: Option<Eid>, count: u32) -> Result<Option<Eid>, StoreError> {
        self.store.nth_after(self.schema, after, usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn first_after(&self, after: Option<Eid>) -> Result<Option<Waiting>, StoreError> {
        // Only the eid and the time are read: no stored column is wanted.
        let wanted = vec![false; self.schema.stored().count()];
        let scan = EventScan { after, wanted, limit: Limit::Oldest(1), ..EventScan::default() };
        let mut first = None;
        self.store.events(self.schema, &scan, &mut |row| {
            first = Some(Waiting { eid: row.eid, time_ns: row.time_ns });
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    fn newest(&self) -> Result<Option<Eid>, StoreError> {
        Ok(self.store.bounds(self.schema)?.map(|(newest, _)| newest))
    }

    fn dropped(&self) -> Result<Option<Eid>, StoreError> {
        self.store.dropped(self.schema)
    }
}
