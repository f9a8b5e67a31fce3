//! Which containers were in which network namespace when, and the events that wait to learn it.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{address::LeaseRun, timeline::TAKEN_DOWN};
use crate::{
    container::ContainerKey,
    feed::Feed,
    lease::{LeaseAction, LeaseEvent, LeaseScope},
};

/// An event of a namespace waits this long for the container that it belongs to.
const WAIT_FOR_CONTAINER: Duration = Duration::from_secs(2);
/// And no more than this many wait at once.
const MOST_HELD: usize = 4096;

/// The runs of all containers, as far as they bear on addresses.
#[derive(Debug, Default)]
pub(super) struct Members {
    runs: HashMap<ContainerKey, Vec<LeaseRun>>,
    of_namespace: HashMap<String, BTreeSet<ContainerKey>>,
}

impl Members {
    pub(super) fn runs(&self, container: &ContainerKey) -> &[LeaseRun] {
        self.runs.get(container).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = &ContainerKey> {
        self.of_namespace.get(namespace).into_iter().flatten()
    }

    /// Replaces what is known of a container; none: it is forgotten. Gives what was known before.
    pub(super) fn set(&mut self, container: &ContainerKey, runs: Vec<LeaseRun>) -> Vec<LeaseRun> {
        let before = self.runs.remove(container).unwrap_or_default();
        for namespace in before.iter().filter_map(|run| run.net_namespace.as_ref()) {
            if let Some(members) = self.of_namespace.get_mut(namespace) {
                members.remove(container);
                if members.is_empty() {
                    self.of_namespace.remove(namespace);
                }
            }
        }
        for namespace in runs.iter().filter_map(|run| run.net_namespace.clone()) {
            self.of_namespace.entry(namespace).or_default().insert(container.clone());
        }
        if !runs.is_empty() {
            self.runs.insert(container.clone(), runs);
        }
        before
    }

    /// The container that an event in a namespace is about, where it is one and known. Its network is made before it starts, and taken down
    /// after it ended; and inodes are used again, so that who ended before another began is out of it.
    fn only(&self, event: &LeaseEvent) -> Option<&ContainerKey> {
        let namespace = event.lease.net_namespace.as_deref()?;
        let ended_after = if event.action == LeaseAction::Removed { event.time_ns - TAKEN_DOWN } else { event.time_ns };
        let may_be = |run: &&LeaseRun| {
            let began = event.action != LeaseAction::Removed || run.from_ns <= event.time_ns;
            run.net_namespace.as_deref() == Some(namespace) && began && run.to_ns.is_none_or(|to| to >= ended_after)
        };
        let runs: Vec<&LeaseRun> = self.of(namespace).flat_map(|key| self.runs(key)).filter(may_be).collect();
        let is_past = |run: &LeaseRun| runs.iter().any(|later| run.to_ns.is_some_and(|to| to <= later.from_ns));
        let mut present = runs.iter().filter(|run| !is_past(run));
        let first = present.next()?;
        present.all(|run| run.container == first.container).then_some(&first.container)
    }
}

/// An event row, and whom it counts for.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Box<LeaseEvent>,
    /// None for what the recorder found out itself.
    pub(super) feed: Option<Feed>,
}

#[derive(Debug)]
struct Held {
    due: Instant,
    told: Told,
}

/// Events on their way to the table.
#[derive(Debug, Default)]
pub(super) struct Rows {
    held: Vec<Held>,
    told: Vec<Told>,
}

impl Rows {
    /// Takes an event; one of a namespace waits until its container is known.
    pub(super) fn take(&mut self, told: Told, now: Instant) {
        let lease = &told.event.lease;
        let waits = lease.scope == LeaseScope::Container && lease.container.container_id.is_empty();
        if waits && self.held.len() < MOST_HELD {
            self.held.push(Held { due: now + WAIT_FOR_CONTAINER, told });
        } else {
            self.told.push(told);
        }
    }

    /// Takes what the recorder found out itself.
    pub(super) fn take_own(&mut self, event: LeaseEvent) {
        self.told.push(Told { event: Box::new(event), feed: None });
    }

    /// Releases those that know their container, and those due by `at`; `None`: all.
    pub(super) fn release(&mut self, members: &Members, at: Option<Instant>) {
        for mut held in std::mem::take(&mut self.held) {
            if let Some(container) = members.only(&held.told.event).cloned() {
                held.told.event.lease.container = container;
            } else if at.is_some_and(|at| held.due > at) {
                self.held.push(held);
                continue;
            }
            self.told.push(held.told);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.due).min()
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}
