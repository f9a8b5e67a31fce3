//! Who had which address: merges what interfaces, the wire, lease files and runtimes say into one timeline for each address.

mod address;
mod claim;
mod members;
mod outcome;
mod present;
mod reducer;
#[cfg(test)]
mod tests;
mod timeline;

use std::{net::IpAddr, time::Instant};

use serde::{Deserialize, Serialize};

use self::{
    address::{Address, LeaseRun},
    members::Told,
    reducer::Reducer,
    timeline::Span,
};
use super::{
    batch::Written,
    heard::Finding,
    lane::{Desk, Lane, kept_name},
    ledger::Moment,
    logs::TableId,
    runs::{RunSpan, runs},
    subject::Subject,
};
use crate::{
    container::{ContainerKey, Run},
    lease::{Lease, LeaseEvent, LeaseReport},
    sink::Sink,
    table::{EventTable, HistoryTable},
    time::Nanos,
};

/// How often what ended a while ago is forgotten.
const SWEEP_EVERY: Nanos = 60_000_000_000;

/// The lane of `ip_lease_events` and `ip_lease_history`.
#[derive(Debug)]
pub(super) struct Leases {
    sink: Sink<LeaseReport>,
    events: (TableId, &'static EventTable<LeaseEvent>),
    history: (TableId, &'static HistoryTable<Lease>),
    reducer: Reducer,
    alarm: Option<Instant>,
    swept_ns: Nanos,
}

/// What the next recorder has to know of an address.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<A> {
    ip: IpAddr,
    #[serde(flatten)]
    address: A,
}

impl Leases {
    pub(super) fn new(
        sink: Sink<LeaseReport>,
        events: (TableId, &'static EventTable<LeaseEvent>),
        history: (TableId, &'static HistoryTable<Lease>),
    ) -> Self {
        Self { sink, events, history, reducer: Reducer::default(), alarm: None, swept_ns: 0 }
    }

    fn kept_name(&self, ip: IpAddr) -> String {
        kept_name(self.name(), &ip.to_string())
    }

    /// Puts what changed into the batch.
    fn write(&mut self, desk: &mut Desk<'_>) {
        let (table, declaration) = self.history;
        for ip in self.reducer.take_dirty() {
            let key = ip.to_string();
            let changes = self.reducer.changes(ip, desk.moment);
            for (from_ns, scope) in changes.remove {
                desk.batch.remove_interval(table, from_ns, key.clone(), scope);
            }
            for span in &changes.put {
                let Span { from_ns, to_ns, ended_reason, evidence, lease } = span;
                let written = Written {
                    key: key.clone(),
                    scope: span.scope(),
                    from_ns: *from_ns,
                    to_ns: *to_ns,
                    ended_reason: ended_reason.map_or("", address::Reason::as_str),
                    evidence: evidence.clone(),
                    fact: lease,
                };
                desk.batch.add_interval(table, declaration.columns, written);
            }
            let kept = self.reducer.address(ip).and_then(|address| serde_json::to_vec(&Kept { ip, address }).ok());
            desk.batch.keep(self.kept_name(ip), kept);
        }
        let (table, declaration) = self.events;
        for Told { event, feed } in self.reducer.take_told() {
            desk.batch.add_event(table, declaration.columns, &*event, event.time_ns, feed.into_iter().collect());
        }
        self.alarm = self.reducer.next_alarm(desk.moment);
    }
}

impl Lane for Leases {
    fn name(&self) -> &'static str {
        self.history.1.name
    }

    fn drain(&mut self, most: usize, desk: &mut Desk<'_>) -> usize {
        let received = self.sink.drain(most);
        let taken = received.len();
        for mut received in received {
            received.item.clean(desk.moment.wall_ns);
            if let Some(cursor) = received.cursor.take() {
                desk.batch.set_cursor(received.feed.stream(), cursor);
            }
            self.reducer.take(received, desk.moment);
        }
        // Their feeds count them; none of them is worth a row of its own.
        self.sink.take_excesses();
        taken
    }

    fn see_container(&mut self, subject: &Subject, moment: Moment) {
        self.reducer.take_runs(&subject.key, lease_runs(subject), moment);
    }

    fn withdraw_container(&mut self, key: &ContainerKey) {
        self.reducer.withdraw(key);
    }

    fn settle(&mut self, desk: &mut Desk<'_>) {
        self.reducer.settle(desk.moment);
        if desk.moment.wall_ns.saturating_sub(self.swept_ns) >= SWEEP_EVERY {
            self.swept_ns = desk.moment.wall_ns;
            for ip in self.reducer.sweep(desk.moment) {
                desk.batch.keep(self.kept_name(ip), None);
            }
        }
        self.write(desk);
    }

    fn take_findings(&mut self) -> Vec<Finding> {
        self.reducer.take_findings()
    }

    fn finish(&mut self, desk: &mut Desk<'_>) {
        self.reducer.release(None);
        self.write(desk);
    }

    fn next_alarm(&self) -> Option<Instant> {
        self.alarm
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Kept<Address>>(value) {
            Ok(Kept { ip, address }) => self.reducer.restore(ip, address),
            Err(error) => tracing::warn!(%error, "what was known of an address cannot be read"),
        }
    }

    fn write_anew(&mut self, desk: &mut Desk<'_>) {
        self.reducer.forget_written();
        self.write(desk);
    }
}

/// The runs of a container, as far as they bear on addresses, with what its runtimes say of these.
fn lease_runs(subject: &Subject) -> Vec<LeaseRun> {
    let of = |run: RunSpan| {
        let Run { net_namespace, ip_addresses, mac_addresses, .. } = run.details.run;
        LeaseRun { from_ns: run.from_ns, to_ns: run.to_ns, container: subject.key.clone(), net_namespace, ip_addresses, mac_addresses }
    };
    runs(&subject.unheard()).into_iter().map(of).collect()
}
