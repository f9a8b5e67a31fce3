//! All containers that are known: takes reports, gives each event its identity, releases rows. Knows no store and no
//! clock of its own, so that every course of events can be tested.

mod endings;
mod release;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque},
    sync::Arc,
    time::Instant,
};

use foldhash::{HashMap, HashSet};

use self::endings::MOST_LIVING;
use super::{
    clean,
    heard::Finding,
    hold::{self, Held, Told},
    kernel,
    namesakes::Namesakes,
    storm::Bucket,
    subject::{Mark, Subject, TOLERANCE, Via, is_dockers_means},
};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Report, Witness},
    feed::Feed,
    sink::Received,
    time::Nanos,
};

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) wall_ns: Nanos,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Box<Subject>,
    pub(super) held: Vec<Held>,
    bucket: Option<Bucket>,
    /// Stands in the queue of those that end.
    ending: bool,
}

/// What a ledger gave out since the last [`Ledger::take_output`].
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) told: Vec<Told>,
    /// Events that only added evidence to one that was told before: feed and time.
    pub(super) known: Vec<(Feed, Nanos)>,
    /// Containers whose subject, and perhaps intervals, changed.
    pub(super) dirty: BTreeSet<ContainerKey>,
    /// Earlier lives of container ids that came back: their intervals are to be written a last time.
    pub(super) former: Vec<Subject>,
    /// Containers to forget.
    pub(super) forgotten: Vec<ContainerKey>,
    /// Containers that vanished in a blind period, and when that was noticed.
    pub(super) vanished: Vec<(ContainerKey, Nanos)>,
    /// Intervals that were written of what turned out to be another container: key and starts.
    pub(super) withdrawn: Vec<(ContainerKey, Vec<Nanos>)>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<ContainerKey, Entry>,
    /// When to look at a container again.
    alarms: BinaryHeap<Reverse<(Instant, ContainerKey)>>,
    touched: HashSet<ContainerKey>,
    /// Of each endpoint, the containers that were alive, by when they were first seen; some are not any more.
    living: HashMap<Arc<str>, VecDeque<ContainerKey>>,
    /// By when they are sealed.
    ending: VecDeque<(Instant, ContainerKey)>,
    sealed: VecDeque<ContainerKey>,
    /// The containers of an id that runtimes report.
    pub(super) by_id: Namesakes,
    /// Of each id, the container that only the kernel knows.
    pub(super) kernel_only: HashMap<Arc<str>, ContainerKey>,
    pub(super) output: Output,
}

impl Ledger {
    /// Takes up what an earlier recorder knew.
    pub(super) fn restore(&mut self, subject: Subject, now: Moment) {
        let key = subject.key.clone();
        if subject.sealed_ns.is_some() {
            self.sealed.push_back(key.clone());
        }
        self.add(key.clone(), subject);
        self.watch_ending(&key, now);
    }

    fn add(&mut self, key: ContainerKey, subject: Subject) {
        if !key.endpoint.is_empty() {
            self.by_id.insert(&key);
        } else if subject.sealed_ns.is_none() {
            self.kernel_only.insert(key.container_id.clone(), key.clone());
        }
        if subject.sealed_ns.is_none() {
            self.living.entry(key.endpoint.clone()).or_default().push_back(key.clone());
        }
        self.entries.insert(key, Entry { subject: Box::new(subject), held: Vec::new(), bucket: None, ending: false });
    }

    /// Takes a container out, and forgets that it was.
    pub(super) fn remove(&mut self, key: &ContainerKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if key.endpoint.is_empty() {
            self.kernel_only.remove(&key.container_id);
        } else {
            self.by_id.remove(key);
        }
        self.touched.remove(key);
        self.output.dirty.remove(key);
        self.output.forgotten.push(key.clone());
        Some(entry)
    }

    pub(super) fn subject(&self, key: &ContainerKey) -> Option<&Subject> {
        self.entries.get(key).map(|e| &*e.subject)
    }

    pub(super) fn subject_mut(&mut self, key: &ContainerKey) -> Option<&mut Subject> {
        self.entries.get_mut(key).map(|e| &mut *e.subject)
    }

    pub(super) fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// Takes one report.
    pub(super) fn take(&mut self, received: Received<Report>, now: Moment) {
        let (feed, endpoint) = (received.feed.clone(), received.item.endpoint().clone());
        self.take_report(received, now);
        if self.bound_living(&endpoint, now) {
            feed.complain(format!("{endpoint} has more than {MOST_LIVING} containers: those first seen are no longer followed"));
        }
    }

    fn take_report(&mut self, received: Received<Report>, now: Moment) {
        match received.item {
            Report::Event(event) if event.source == Witness::Ebpf => self.take_kernel_event(event, received.feed, now),
            Report::Snapshot(snapshot) if snapshot.witness == Witness::Ebpf => self.take_kernel_list(&snapshot, now),
            Report::Event(event) => self.take_event(event, received.feed, now),
            Report::Details { key, witness, details } => {
                self.renew(&key, details.created_ns.filter(|_| !is_dockers_means(&key, witness)), now);
                self.adopt(&key);
                let entry = self.entry(&key);
                entry.subject.learn(witness, Via::Inspect, &details);
                self.touch(&key);
            }
            Report::Snapshot(snapshot) => {
                let present: HashSet<&ContainerKey> = snapshot.containers.iter().map(|(key, ..)| key).collect();
                self.find_vanished(&snapshot, &present, now);
                for (key, state, details) in &snapshot.containers {
                    self.take_listed(&snapshot, key, *state, details, now);
                }
            }
        }
    }

    /// Takes what was found out about a container that is known.
    pub(super) fn take_finding(&mut self, finding: Finding) {
        let key = finding.container.clone();
        if self.subject_mut(&key).is_some_and(|subject| subject.hear(finding)) {
            self.touch(&key);
        }
    }

    pub(super) fn take_event(&mut self, mut event: Box<ContainerEvent>, feed: Feed, now: Moment) {
        let key = event.key.clone();
        let reported_ns = clean::reported_time(&event);
        event.time_ns = self.entry(&key).subject.believe(reported_ns, event.time_ns);
        match event.action {
            Action::Create if !is_dockers_means(&key, event.source) => self.renew(&key, Some(event.time_ns), now),
            Action::Start => self.renew(&key, Some(event.time_ns.saturating_sub(TOLERANCE)), now),
            _ => {}
        }
        self.adopt(&key);
        let entry = self.entry(&key);
        let Some(mark) = entry.subject.see(&event) else {
            self.output.known.push((feed, event.time_ns));
            self.touch(&key);
            return;
        };
        match entry.find(&mark) {
            Found::Told => self.output.known.push((feed, event.time_ns)),
            Found::Held(at) => {
                // What the kernel told waited for this.
                let due = kernel::due(&event, now.at).unwrap_or_else(|| hold::due(event.time_ns, now.at, now.wall_ns));
                let held = &mut entry.held[at];
                held.merge(event, mark, Some(feed));
                if due < held.due {
                    held.due = due;
                    self.alarms.push(Reverse((due, key.clone())));
                }
            }
            Found::New if event.action.is_trifle() && !entry.bucket.get_or_insert_with(|| Bucket::new(now.at)).admit(now.at) => {
                feed.count_rejected();
                entry.subject.tell(&mark);
                self.note_shed(&key, 1, now);
            }
            Found::New => self.hold(event, mark, Some(feed), now),
        }
        self.touch(&key);
    }

    /// Counts events of a container that will not be told: one row says how many, once a window.
    pub(super) fn note_shed(&mut self, key: &ContainerKey, events: u64, now: Moment) {
        if let Some(ends) = self.entry(key).bucket.get_or_insert_with(|| Bucket::new(now.at)).shed(events, now.at) {
            self.alarms.push(Reverse((ends, key.clone())));
        }
        self.touch(key);
    }

    /// Lets an event wait for its details.
    pub(super) fn hold(&mut self, event: Box<ContainerEvent>, mark: Mark, feed: Option<Feed>, now: Moment) {
        let due = kernel::due(&event, now.at).unwrap_or_else(|| hold::due(event.time_ns, now.at, now.wall_ns));
        self.hold_on(Held { event, mark, feeds: feed.into_iter().collect(), due });
    }

    pub(super) fn hold_on(&mut self, held: Held) {
        let key = held.event.key.clone();
        self.alarms.push(Reverse((held.due, key.clone())));
        self.entry(&key).held.push(held);
        self.touch(&key);
    }

    /// Where the event of a row that waits stands with that container.
    pub(super) fn find(&mut self, key: &ContainerKey, held: &Held) -> Found {
        self.entry(key).find(&held.mark)
    }

    pub(super) fn note_known(&mut self, feed: Feed, time_ns: Nanos) {
        self.output.known.push((feed, time_ns));
    }

    /// Begins a new life if the container was removed before `begins_ns`: ids that a user chose come back.
    pub(super) fn renew(&mut self, key: &ContainerKey, begins_ns: Option<Nanos>, now: Moment) {
        let Some(entry) = self.entries.get(key) else { return };
        let Some(past) = entry.subject.destroyed_ns().filter(|past| begins_ns.is_some_and(|begins| begins > *past)) else { return };
        self.release(key, now, true);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let former = std::mem::take(&mut entry.subject);
        *entry.subject = former.reborn(past);
        entry.ending = false;
        self.sealed.retain(|k| k != key);
        self.ending.retain(|(_, k)| k != key);
        self.output.former.push(*former);
        self.touch(key);
    }

    fn entry(&mut self, key: &ContainerKey) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.add(key.clone(), Subject::new(key.clone()));
        }
        self.entries.get_mut(key).expect("it was inserted if it was not there")
    }

    /// Keeps no room for what a storm brought.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.by_id.shrink();
        for living in self.living.values_mut() {
            // Each key of the dead would hold a page that is otherwise free.
            living.retain(|key| self.entries.get(key).is_some_and(|e| e.subject.is_alive()));
            living.shrink_to_fit();
        }
        self.sealed.shrink_to_fit();
        self.touched.shrink_to_fit();
        self.alarms.shrink_to_fit();
        self.ending.shrink_to_fit();
    }

    pub(super) fn touch(&mut self, key: &ContainerKey) {
        self.touched.insert(key.clone());
    }

    /// When [`Ledger::settle`] has something to do without a new report.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets what is in the store, because the store was lost.
    pub(super) fn forget_written(&mut self) {
        self.entries.values_mut().for_each(|e| e.subject.written.clear());
    }

    /// All containers that are known, those that ended among them.
    pub(super) fn keys(&self) -> Vec<ContainerKey> {
        self.entries.keys().cloned().collect()
    }

    /// The containers of an endpoint's namespace that live as far as is known.
    pub(super) fn alive(&self, endpoint: &str, namespace: &str) -> Vec<ContainerKey> {
        let mut keys: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, e)| *key.endpoint == *endpoint && *key.runtime_namespace == *namespace && e.subject.is_alive())
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_unstable();
        keys
    }

    pub(super) fn note_vanished(&mut self, key: ContainerKey, at_ns: Nanos) {
        self.output.vanished.push((key, at_ns));
    }

    /// Whether an event row was told, or waits to be, for the container.
    pub(super) fn is_known(&self, key: &ContainerKey) -> bool {
        self.entries.get(key).is_some_and(|e| {
            !e.held.is_empty()
                || e.subject.existing_ns.is_some()
                || e.subject.floor_ns.is_some()
                || e.subject.sightings.iter().any(|s| s.told)
        })
    }

    pub(super) fn subject_or_new(&mut self, key: &ContainerKey) -> &mut Subject {
        &mut self.entry(key).subject
    }

    /// The rows that wait for one container.
    pub(super) fn held_mut(&mut self, key: &ContainerKey) -> &mut Vec<Held> {
        &mut self.entry(key).held
    }
}

/// Where an event that was just seen stands.
pub(super) enum Found {
    New,
    Held(usize),
    Told,
}

impl Entry {
    fn find(&self, mark: &Mark) -> Found {
        let kin = self.subject.course().kin(mark);
        if kin.iter().any(|s| s.told) {
            return Found::Told;
        }
        self.held.iter().position(|h| h.mark == *mark || kin.iter().any(|s| s.mark == h.mark)).map_or(Found::New, Found::Held)
    }
}
