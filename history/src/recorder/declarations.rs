//! What the recorder writes: the tables of containers, and a lane for each other kind of record or fact.

use std::fmt;

use super::{
    Sinks,
    lane::{EventLane, HistoryLane, Lane},
    leases::Leases,
    logs::TableList,
    ports::Ports,
};
use crate::{
    container::{ContainerEvent, ContainerState},
    fact::{Change, Fact},
    lease::{Lease, LeaseEvent},
    port::PortBinding,
    record::Record,
    table::{EventTable, HistoryTable},
};

type Open = Box<dyn FnOnce(&mut TableList, &Sinks) -> Box<dyn Lane> + Send>;

/// The declarations that the recorder writes by.
pub struct Declarations {
    pub(super) container_events: &'static EventTable<ContainerEvent>,
    pub(super) container_history: &'static HistoryTable<ContainerState>,
    lanes: Vec<(&'static str, Open)>,
}

impl fmt::Debug for Declarations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.lanes.iter().map(|(name, _)| name);
        f.debug_set().entry(&self.container_events.name).entry(&self.container_history.name).entries(names).finish()
    }
}

impl Declarations {
    /// The tables of containers, which the recorder cannot do without.
    pub fn new(events: &'static EventTable<ContainerEvent>, history: &'static HistoryTable<ContainerState>) -> Self {
        Self { container_events: events, container_history: history, lanes: Vec::new() }
    }

    /// A table of events; sources push them into `Sinks::of::<E>()`.
    pub fn add_events<E: Record>(&mut self, table: &'static EventTable<E>) {
        self.add(table.name, move |tables, sinks| Box::new(EventLane::new(sinks.of::<E>(), tables.add(table.schema()), table)));
    }

    /// A history of facts; sources push their changes into `Sinks::of::<Change<S>>()`.
    pub fn add_history<S: Fact>(&mut self, table: &'static HistoryTable<S>) {
        self.add(table.name, move |tables, sinks| Box::new(HistoryLane::new(sinks.of::<Change<S>>(), tables.add(table.schema()), table)));
    }

    /// The tables of addresses; sources push into `Sinks::of::<LeaseReport>()`.
    pub fn add_leases(&mut self, events: &'static EventTable<LeaseEvent>, history: &'static HistoryTable<Lease>) {
        self.add(history.name, move |tables, sinks| {
            let (of_events, of_history) = (tables.add(events.schema()), tables.add(history.schema()));
            Box::new(Leases::new(sinks.of(), (of_events, events), (of_history, history)))
        });
    }

    /// The published ports of containers, which follow from what is known of these.
    pub fn add_ports(&mut self, history: &'static HistoryTable<PortBinding>) {
        self.add(history.name, move |tables, _| Box::new(Ports::new(tables.add(history.schema()), history)));
    }

    fn add(&mut self, name: &'static str, open: impl FnOnce(&mut TableList, &Sinks) -> Box<dyn Lane> + Send + 'static) {
        self.lanes.push((name, Box::new(open)));
    }

    /// The lanes, and all tables in their order.
    pub(super) fn open(self, sinks: &Sinks) -> (Vec<Box<dyn Lane>>, TableList) {
        let mut tables = TableList::new(self.container_events.schema(), self.container_history.schema());
        let lanes = self.lanes.into_iter().map(|(_, open)| open(&mut tables, sinks)).collect();
        (lanes, tables)
    }
}
