//! What the kernel tells of containers: one that no runtime reports is a container of its own, until a runtime does.
//!
//! The kernel knows ids, not endpoints. What it tells of a container that a runtime reports is evidence for that one.
//! Of others it waits for a while; a runtime that reports the container after that takes over what was told by then.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    hold::Held,
    ledger::{Found, Ledger, Moment},
    subject::Subject,
};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Snapshot, Witness},
    feed::Feed,
    time::Nanos,
};

/// How long what only the kernel told waits for a runtime to tell it: Podman's log is read that late.
const HOLD: Duration = Duration::from_secs(1);

/// When an event that only the kernel told has waited long enough for a runtime to tell it. `None`: it is no such event.
pub(super) fn due(event: &ContainerEvent, now: Instant) -> Option<Instant> {
    (event.source == Witness::Ebpf).then(|| now + HOLD)
}

impl Ledger {
    /// Takes an event that the kernel told.
    pub(super) fn take_kernel_event(&mut self, mut event: Box<ContainerEvent>, feed: Feed, now: Moment) {
        match self.meant(&event.key, event.action, event.time_ns) {
            // A cgroup comes and goes with each run of a container that a runtime keeps.
            Some(key) if key.endpoint.is_empty() || !matches!(event.action, Action::Create | Action::Destroy) => {
                event.key = key;
                self.take_event(event, feed, now);
            }
            _ => self.note_known(feed, event.time_ns),
        }
    }

    /// Takes the list of all containers that have a cgroup.
    pub(super) fn take_kernel_list(&mut self, snapshot: &Snapshot, now: Moment) {
        let present: HashSet<&str> = snapshot.containers.iter().map(|(key, ..)| &*key.container_id).collect();
        let gone: Vec<_> = self.kernel_only.values().filter(|key| !present.contains(&*key.container_id)).cloned().collect();
        for key in gone {
            self.note_absent(&key, snapshot);
        }
        for (key, state, details) in &snapshot.containers {
            if self.meant(key, Action::Start, snapshot.taken_ns).is_some_and(|meant| meant.endpoint.is_empty()) {
                self.take_listed(snapshot, key, *state, details, now);
            }
        }
    }

    /// The container that the kernel means. `None`: several have that id.
    fn meant(&self, told: &ContainerKey, action: Action, time_ns: Nanos) -> Option<ContainerKey> {
        let begins = matches!(action, Action::Create | Action::Start);
        let lives = |key: &&ContainerKey| {
            self.subject(key).is_some_and(|s| !begins || s.destroyed_ns().is_none_or(|destroyed| destroyed >= time_ns))
        };
        let mut reported = self.by_id.of(&told.container_id).iter().filter(|key| is_same(told, key)).filter(lives);
        match (reported.next(), reported.next()) {
            (None, _) => Some(told.clone()),
            (Some(_), None) if !begins && self.kernel_only.contains_key(&told.container_id) => Some(told.clone()),
            (Some(only), None) => Some(only.clone()),
            (Some(_), Some(_)) => None,
        }
    }

    /// A runtime reported `key`: what the kernel told of it until now is evidence for it, and stands no longer for itself.
    pub(super) fn adopt(&mut self, key: &ContainerKey) {
        let Some(told) = self.kernel_only.get(&key.container_id).filter(|told| is_same(told, key)).cloned() else { return };
        let last_seen = self.subject(&told).and_then(Subject::last_seen_ns);
        let is_over = |s: &Subject| s.destroyed_ns().is_some_and(|destroyed| last_seen.is_some_and(|seen| seen > destroyed));
        if self.subject(key).is_some_and(is_over) {
            return;
        }
        let Some(mut kernels) = self.remove(&told) else { return };
        if kernels.held.iter().any(|held| held.event.action == Action::Existing) {
            kernels.subject.existing_ns = None;
        }
        self.output.withdrawn.push((told, kernels.subject.written.iter().map(|(from_ns, _)| *from_ns).collect()));
        self.subject_or_new(key).take_over(*kernels.subject);
        for mut held in kernels.held {
            // The runtime says itself what it has, and what it removed.
            let is_runtimes = matches!(held.event.action, Action::Existing | Action::Destroy);
            held.event.key = key.clone();
            match self.find(key, &held) {
                _ if is_runtimes => self.note_all_known(held),
                Found::Told => self.note_all_known(held),
                Found::Held(at) => self.held_mut(key)[at].join(held),
                Found::New => self.hold_on(held),
            }
        }
        self.touch(key);
    }

    fn note_all_known(&mut self, held: Held) {
        let time_ns = held.event.time_ns;
        held.feeds.into_iter().for_each(|feed| self.note_known(feed, time_ns));
    }
}

/// Whether what the kernel calls `told` may be the container that a runtime calls `key`.
fn is_same(told: &ContainerKey, key: &ContainerKey) -> bool {
    !key.endpoint.is_empty() && (told.runtime_namespace.is_empty() || told.runtime_namespace == key.runtime_namespace)
}
