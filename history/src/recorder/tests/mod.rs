//! The reducer against hand-made reports and simulated hosts.

mod kernel;
mod moby;
mod order;
pub(super) mod recorded;
mod recovery;
mod storm;
pub(super) mod trouble;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    course::Span,
    heard::Finding,
    hold::Told,
    ledger::{Ledger, Moment},
    subject::Subject,
};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Details, Report, Run, Snapshot, State, Witness},
    feed::Feed,
    sink::Received,
    time::Nanos,
};

pub(super) const MS: Nanos = 1_000_000;
pub(super) const S: Nanos = 1000 * MS;
/// When the tests take place.
pub(super) const T0: Nanos = 1_700_000_000 * S;

pub(super) fn docker(id: &str) -> ContainerKey {
    ContainerKey { container_id: id.into(), runtime_namespace: "moby".into(), endpoint: "unix:///run/docker.sock".into() }
}

pub(super) fn kubernetes(id: &str) -> ContainerKey {
    ContainerKey { container_id: id.into(), runtime_namespace: "k8s.io".into(), endpoint: "unix:///run/containerd/containerd.sock".into() }
}

pub(super) fn event(key: &ContainerKey, source: Witness, action: Action, time_ns: Nanos) -> ContainerEvent {
    ContainerEvent {
        time_ns,
        action,
        source,
        recovered: false,
        key: key.clone(),
        exec_id: None,
        lifetime_ms: None,
        details: Details::default(),
        attributes: BTreeMap::new(),
        settled: true,
    }
}

pub(super) fn with_run(mut event: ContainerEvent, run: Run) -> ContainerEvent {
    event.details.run = run;
    event
}

pub(super) fn pid(pid: i64) -> Run {
    Run { pid: Some(pid), ..Run::default() }
}

pub(super) fn exit(exit_code: i64) -> Run {
    Run { exit_code: Some(exit_code), ..Run::default() }
}

/// A ledger with a clock that only the test moves.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) ledger: Ledger,
    pub(super) feed: Feed,
    begun: Instant,
    pub(super) wall_ns: Nanos,
    pub(super) rows: Vec<Told>,
    pub(super) known: usize,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { ledger: Ledger::default(), feed: Feed::new("docker", ""), begun: Instant::now(), wall_ns: T0, rows: Vec::new(), known: 0 }
    }

    pub(super) fn moment(&self) -> Moment {
        let elapsed = Duration::from_nanos(u64::try_from(self.wall_ns - T0).unwrap());
        Moment { at: self.begun + elapsed, wall_ns: self.wall_ns }
    }

    pub(super) fn push(&mut self, report: Report) {
        let received = Received { item: report, feed: self.feed.clone(), cursor: None };
        self.ledger.take(received, self.moment());
        self.settle();
    }

    /// Pushes events, each received 1 ms after it happened, or now if that is past.
    pub(super) fn live(&mut self, events: impl IntoIterator<Item = ContainerEvent>) {
        for event in events {
            self.until(event.time_ns + MS);
            self.push(Report::Event(Box::new(event)));
        }
    }

    pub(super) fn details(&mut self, key: &ContainerKey, witness: Witness, details: Details) {
        self.push(Report::Details { key: key.clone(), witness, details: Box::new(details) });
    }

    pub(super) fn list(&mut self, key: &ContainerKey, blind_since: Option<Nanos>, containers: Vec<(ContainerKey, State, Details)>) {
        let witness = if *key.runtime_namespace == *"moby" { Witness::Docker } else { Witness::Containerd };
        let snapshot = Snapshot {
            endpoint: key.endpoint.clone(),
            runtime_namespace: key.runtime_namespace.clone(),
            witness,
            taken_ns: self.wall_ns,
            blind_since,
            containers,
        };
        self.push(Report::Snapshot(Box::new(snapshot)));
    }

    /// Hands in what a lane found out.
    pub(super) fn find(&mut self, finding: Finding) {
        self.ledger.take_finding(finding);
        self.settle();
    }

    /// Does what the recorder does now and then.
    pub(super) fn sweep(&mut self) {
        self.ledger.sweep(self.moment());
        self.settle();
    }

    fn settle(&mut self) {
        self.ledger.settle(self.moment());
        let output = self.ledger.take_output();
        self.known += output.known.len();
        self.rows.extend(output.told);
    }

    pub(super) fn until(&mut self, wall_ns: Nanos) {
        while let Some(alarm) = self.ledger.next_alarm().map(|at| T0 + i64::try_from((at - self.begun).as_nanos()).unwrap())
            && alarm < wall_ns
        {
            self.wall_ns = self.wall_ns.max(alarm);
            self.settle();
        }
        self.wall_ns = self.wall_ns.max(wall_ns);
    }

    /// Waits until nothing waits any more.
    pub(super) fn finish(&mut self) {
        self.until(self.wall_ns + 60 * S);
    }

    pub(super) fn told(&self, key: &ContainerKey) -> Vec<(Action, Nanos)> {
        self.rows.iter().filter(|t| t.event.key == *key).map(|t| (t.event.action, t.event.time_ns)).collect()
    }

    pub(super) fn row(&self, key: &ContainerKey, action: Action) -> &ContainerEvent {
        let mut rows = self.rows.iter().filter(|t| t.event.key == *key && t.event.action == action);
        let row = rows.next().unwrap_or_else(|| panic!("no row {action:?}"));
        assert!(rows.next().is_none(), "one row {action:?}");
        &row.event
    }

    pub(super) fn spans(&self, key: &ContainerKey) -> Vec<Span> {
        self.ledger.subject(key).map(Subject::intervals).unwrap_or_default()
    }

    /// State, from, to and reason of each interval.
    pub(super) fn history(&self, key: &ContainerKey) -> Vec<(State, Nanos, Option<Nanos>, &'static str)> {
        self.spans(key).iter().map(|s| (s.state, s.from_ns, s.to_ns, s.ended_reason)).collect()
    }
}
