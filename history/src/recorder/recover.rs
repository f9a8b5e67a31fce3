//! After a gap: what a list of all containers reveals against what was known.

use std::collections::BTreeMap;

use foldhash::HashSet;

use super::{
    ledger::{Ledger, Moment},
    subject::{Mark, TOLERANCE, Via, is_dockers_means},
};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Details, Run, Snapshot, State, Witness},
    time::Nanos,
};

impl Ledger {
    /// Closes what was known alive and is in the list no more. No event is invented for it.
    pub(super) fn find_vanished(&mut self, snapshot: &Snapshot, present: &HashSet<&ContainerKey>, _now: Moment) {
        for key in self.alive(&snapshot.endpoint, &snapshot.runtime_namespace) {
            // Docker's containers are in containerd only while they run.
            if !present.contains(&key) && !is_dockers_means(&key, snapshot.witness) {
                self.note_absent(&key, snapshot);
            }
        }
    }

    /// Closes a container that a list does not have, if whoever listed knew of it and it is not younger than the list.
    pub(super) fn note_absent(&mut self, key: &ContainerKey, snapshot: &Snapshot) {
        let Some(subject) = self.subject_mut(key) else { return };
        // One witness lists what another does not know of, e.g. the sandboxes of pods.
        let is_listed_by_it =
            subject.facts.contains_key(&snapshot.witness) || (snapshot.witness == Witness::Docker && subject.is_half_seen());
        let is_younger = subject.last_seen_ns().is_some_and(|seen| seen >= snapshot.taken_ns);
        if is_listed_by_it && !is_younger {
            subject.gone_ns = Some(snapshot.taken_ns);
            self.note_vanished(key.clone(), snapshot.taken_ns);
            self.touch(key);
        }
    }

    /// Takes one container of a list.
    pub(super) fn take_listed(&mut self, snapshot: &Snapshot, key: &ContainerKey, state: State, details: &Details, now: Moment) {
        // A list that was taken well after its removal shows the next container of that id.
        self.renew(key, details.created_ns.or(Some(snapshot.taken_ns.saturating_sub(TOLERANCE))), now);
        self.adopt(key);
        let was_known = self.is_known(key);
        let (witness, taken_ns) = (snapshot.witness, snapshot.taken_ns);
        let subject = self.subject_or_new(key);
        if subject.destroyed_ns().is_some() {
            return;
        }
        let was_found_ns = subject.existing_ns;
        subject.gone_ns = None;
        subject.learn(witness, Via::Listed, details);
        // Newer than the list is only what the stream told meanwhile.
        if subject.last_seen_ns().is_none_or(|seen| seen < taken_ns) {
            for action in missing_steps(subject.course().state(), state, &details.run) {
                let mark = Mark { time_ns: taken_ns, action: *action, witness, via: Via::Listed, exec_id: None };
                subject.insert(mark, Run { pid: details.run.pid, ..Run::default() });
            }
        }
        self.touch(key);
        match snapshot.blind_since {
            None if !was_known => self.find_existing(snapshot, key, now),
            None => self.improve_existing(snapshot, key),
            Some(since) => {
                let since = since.saturating_sub(TOLERANCE);
                let found = self.recover(key, since.max(was_found_ns.unwrap_or(Nanos::MIN)), now);
                if !was_known && !found.contains(&Action::Create) {
                    self.find_existing(snapshot, key, now);
                }
            }
        }
    }

    /// Finds events that were taken for one until newer evidence told them apart: each gets its row after all.
    pub(super) fn find_split(&mut self, key: &ContainerKey, now: Moment) {
        let held: Vec<Mark> = self.held_mut(key).iter().map(|h| h.mark.clone()).collect();
        let Some(subject) = self.subject(key) else { return };
        let mut split = Vec::new();
        for (_, group) in subject.course().turning_points() {
            let is_told = group.iter().any(|s| s.told || held.contains(&s.mark));
            let best = group.iter().filter(|s| s.mark.via == Via::Stream).min_by_key(|s| s.mark.channel());
            split.extend(best.filter(|_| !is_told).map(|s| s.mark.clone()));
        }
        for mark in split {
            let event = found(key, mark.action, mark.time_ns, mark.witness, false);
            self.hold(event, mark, None, now);
        }
    }

    /// Tells what happened since `since_ns` and was not told: with the runtime's own times.
    fn recover(&mut self, key: &ContainerKey, since_ns: Nanos, now: Moment) -> Vec<Action> {
        let held: Vec<Mark> = self.held_mut(key).iter().map(|h| h.mark.clone()).collect();
        let Some(subject) = self.subject(key) else { return Vec::new() };
        let mut missing = Vec::new();
        for (action, group) in subject.course().turning_points() {
            let is_told = group.iter().any(|s| s.told || held.contains(&s.mark));
            let best = group.iter().min_by_key(|s| s.mark.channel());
            if let Some(best) = best.filter(|b| !is_told && b.mark.time_ns > since_ns) {
                missing.push((action, best.mark.clone()));
            }
        }
        let actions = missing.iter().map(|(action, _)| *action).collect();
        for (action, mark) in missing {
            let event = found(key, action, mark.time_ns, Witness::Reconcile, true);
            self.hold(event, mark, None, now);
        }
        actions
    }

    fn find_existing(&mut self, snapshot: &Snapshot, key: &ContainerKey, now: Moment) {
        let event = found(key, Action::Existing, snapshot.taken_ns, snapshot.witness, snapshot.blind_since.is_some());
        let mark = Mark { via: Via::Listed, ..Mark::of(&event) };
        let subject = self.subject_or_new(key);
        subject.existing_ns = Some(snapshot.taken_ns);
        self.hold(event, mark, None, now);
    }

    /// A better witness lists the same container while the row still waits.
    fn improve_existing(&mut self, snapshot: &Snapshot, key: &ContainerKey) {
        let existing = self.held_mut(key).iter_mut().find(|h| h.event.action == Action::Existing);
        if let Some(held) = existing.filter(|h| snapshot.witness < h.event.source) {
            held.event.source = snapshot.witness;
        }
    }
}

fn found(key: &ContainerKey, action: Action, time_ns: Nanos, source: Witness, recovered: bool) -> Box<ContainerEvent> {
    Box::new(ContainerEvent {
        time_ns,
        action,
        source,
        recovered,
        key: key.clone(),
        exec_id: None,
        lifetime_ms: None,
        details: Details::default(),
        attributes: BTreeMap::new(),
        settled: false,
    })
}

/// What must have happened between the state that is known and the one that is listed, where the list does not say when.
fn missing_steps(known: State, listed: State, run: &Run) -> &'static [Action] {
    match (known, listed) {
        (State::Created | State::Exited, State::Running) if run.started_ns.is_none() => &[Action::Start],
        (State::Created | State::Exited, State::Paused) if run.started_ns.is_none() => &[Action::Start, Action::Pause],
        (State::Running, State::Paused) => &[Action::Pause],
        (State::Paused, State::Running) => &[Action::Unpause],
        (State::Created | State::Running | State::Paused, State::Exited) if run.finished_ns.is_none() => &[Action::Die],
        // containerd's container is there, its task is gone.
        (State::Running | State::Paused, State::Created) => &[Action::Die],
        _ => &[],
    }
}
