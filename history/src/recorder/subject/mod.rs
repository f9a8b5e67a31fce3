//! The evidence of one container: what was seen, by whom, when. Kept as a set, so that the order in which it came
//! does not matter; what follows from it is worked out in [`super::course`].

mod bounds;
mod mark;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::mark::is_nothing;
pub(super) use self::mark::{HintKey, Mark, Sighting, Via, is_exec};
use super::{facts, heard::Heard};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Details, Run, State, Witness},
    time::Nanos,
};

/// Two witnesses that tell the same thing tell it within this time of each other.
pub(super) const TOLERANCE: Nanos = 2_000_000_000;
/// Impossible times that are remembered.
const MOST_AHEAD_KEPT: usize = 16;

/// How a container ended, as far as its evidence tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was removed then.
    Removed(Nanos),
    /// It was not in a list any more.
    Gone(Nanos),
    /// Nobody told of an event of it.
    Hearsay,
    /// Its run is over, and whoever told of it cannot know of its removal: that is all that anybody will ever say.
    Left,
}

/// Docker makes a new containerd container for each start: what containerd says there of a creation or a removal is not the container's.
pub(super) fn is_dockers_means(key: &ContainerKey, witness: Witness) -> bool {
    witness == Witness::Containerd && *key.runtime_namespace == *"moby"
}

/// All evidence of one container, from its creation to its removal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    pub(super) key: ContainerKey,
    /// Sorted by mark, each once.
    pub(super) sightings: Vec<Sighting>,
    /// Sorted by key, each once.
    pub(super) hints: Vec<(HintKey, Run)>,
    /// Sorted, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) heard: Vec<Heard>,
    /// What each witness knows of the container itself; the order of witnesses is their precedence.
    pub(super) facts: BTreeMap<Witness, Box<Details>>,
    /// The newest rename: it wins over all other names.
    renamed: Option<(Nanos, String)>,
    /// When it was told as `existing`: what happened before was before the first look.
    pub(super) existing_ns: Option<Nanos>,
    /// When a list of all containers no longer had it.
    pub(super) gone_ns: Option<Nanos>,
    /// What was before this is final: its evidence is forgotten, more of it is ignored.
    pub(super) floor_ns: Option<Nanos>,
    noise_floor_ns: Option<Nanos>,
    /// Removed, and all of its evidence forgotten: only remembered so that a replay is not taken for a new container.
    pub(super) sealed_ns: Option<Nanos>,
    /// Times that were told of the future, and those that were believed instead: so that a replay is recognised.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<(Nanos, Nanos)>,
    /// Starts of the intervals that are in the store, with a digest of their content.
    pub(super) written: Vec<(Nanos, u64)>,
}

impl Subject {
    pub(super) fn new(key: ContainerKey) -> Self {
        Self { key, ..Self::default() }
    }

    /// Takes the evidence of an event. `None`: it is too old to change anything, or not about the container itself.
    pub(super) fn see(&mut self, event: &ContainerEvent) -> Option<Mark> {
        let mark = Mark::of(event);
        if self.is_past(mark.time_ns, mark.action) {
            return None;
        }
        self.learn_container(mark.witness, &event.details);
        if event.action == Action::Rename
            && let Some(name) = &event.details.name
        {
            let newer = (event.time_ns, name.clone());
            self.renamed = self.renamed.take().max(Some(newer));
        }
        if self.is_dockers_means(mark.witness) && matches!(mark.action, Action::Create | Action::Destroy) {
            return None;
        }
        let run = &event.details.run;
        match mark.action {
            Action::Start => {
                self.insert(mark.clone(), beginning(run));
                self.learn_times(mark.witness, Via::Inspect, run);
            }
            Action::Die => {
                self.insert(mark.clone(), ending(run, mark.time_ns));
                self.learn_times(mark.witness, Via::Inspect, run);
            }
            // Their process is not the container's.
            action if is_exec(action) => self.insert(mark.clone(), Run::default()),
            _ => {
                self.insert(mark.clone(), Run::default());
                self.learn_run(mark.witness, Via::Inspect, run, Some(mark.time_ns));
            }
        }
        self.bound();
        Some(mark)
    }

    /// The time of an event that was reported with another one, which could not be: the same at each telling, also once it can be.
    pub(super) fn believe(&mut self, reported_ns: Nanos, time_ns: Nanos) -> Nanos {
        if let Some((_, believed)) = self.ahead.iter().find(|(reported, _)| *reported == reported_ns) {
            return *believed;
        }
        if reported_ns <= time_ns || self.sealed_ns.is_some() {
            return time_ns;
        }
        if self.ahead.len() >= MOST_AHEAD_KEPT {
            self.ahead.remove(0);
        }
        self.ahead.push((reported_ns, time_ns));
        time_ns
    }

    /// Takes what a witness knows when asked.
    pub(super) fn learn(&mut self, witness: Witness, via: Via, details: &Details) {
        if self.sealed_ns.is_some() {
            return;
        }
        self.learn_container(witness, details);
        if let Some(time_ns) = details.created_ns.filter(|t| *t > 0 && !self.is_dockers_means(witness)) {
            self.witness_time(Mark { time_ns, action: Action::Create, witness, via, exec_id: None }, Run::default());
        }
        self.learn_run(witness, via, &details.run, None);
        self.bound();
    }

    fn is_dockers_means(&self, witness: Witness) -> bool {
        is_dockers_means(&self.key, witness)
    }

    /// Whether only witnesses told of it who cannot know that it was removed: of Docker's containers, which outlive their runs,
    /// containerd; of any, the kernel.
    pub(super) fn is_half_seen(&self) -> bool {
        let cannot_know = |w: &Witness| *w == Witness::Ebpf || self.is_dockers_means(*w);
        !self.facts.is_empty() && self.facts.keys().all(cannot_know)
    }

    /// Takes the evidence of what turned out to be the same container. That its cgroup went away is no removal then.
    pub(super) fn take_over(&mut self, other: Self) {
        for sighting in other.sightings.into_iter().filter(|s| s.mark.action != Action::Destroy) {
            let (mark, was_told) = (sighting.mark.clone(), sighting.told);
            self.insert(mark.clone(), sighting.run);
            if was_told {
                self.tell(&mark);
            }
        }
        for (witness, details) in other.facts {
            facts::unite(self.facts.entry(witness).or_default(), &details);
        }
        for (key, run) in other.hints {
            self.add_hint(key, &run);
        }
        self.existing_ns = self.existing_ns.or(other.existing_ns);
        self.bound();
    }

    /// How it ended; `None` while it may go on.
    pub(super) fn ending(&self) -> Option<Ending> {
        match (self.destroyed_ns(), self.gone_ns) {
            (Some(past), _) => Some(Ending::Removed(past)),
            (None, Some(past)) => Some(Ending::Gone(past)),
            (None, None) if self.is_hearsay() => Some(Ending::Hearsay),
            (None, None) if self.is_half_seen() && self.course().state() == State::Exited => Some(Ending::Left),
            (None, None) => None,
        }
    }

    /// Whether it goes on, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.sealed_ns.is_none() && self.gone_ns.is_none() && self.destroyed_ns().is_none()
    }

    /// Whether nobody told of an event of it, nor listed it: some details came, of a container that may be long gone.
    fn is_hearsay(&self) -> bool {
        self.existing_ns.is_none() && self.floor_ns.is_none() && self.sightings.iter().all(|s| s.mark.via == Via::Inspect)
    }

    fn learn_container(&mut self, witness: Witness, details: &Details) {
        let says_when = details.created_ns.is_some_and(|t| t > 0) && !self.is_dockers_means(witness);
        let known = self.facts.entry(witness).or_default();
        let created_ns = known.created_ns;
        facts::unite(known, details);
        if !says_when {
            known.created_ns = created_ns;
        }
    }

    /// `at`: when this was so, where the run does not say when it began.
    fn learn_run(&mut self, witness: Witness, via: Via, run: &Run, at: Option<Nanos>) {
        if self.learn_times(witness, via, run) {
            return;
        }
        let key = HintKey { witness, pid: run.pid, at: at.filter(|_| run.pid.is_none()) };
        // What names no run may speak of the one before: how that ended is no fact of the next.
        let run = if key.pid.is_none() && key.at.is_none() { beginning(run) } else { run.clone() };
        if is_nothing(&run) {
            return;
        }
        self.add_hint(key, &run);
    }

    fn add_hint(&mut self, key: HintKey, run: &Run) {
        match self.hints.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(i) => facts::unite_run(&mut self.hints[i].1, run),
            Err(i) => self.hints.insert(i, (key, run.clone())),
        }
    }

    /// Takes the times at which a run began and ended as evidence of both; returns whether it said any.
    fn learn_times(&mut self, witness: Witness, via: Via, run: &Run) -> bool {
        let started = run.started_ns.filter(|t| *t > 0);
        let finished = run.finished_ns.filter(|t| *t > 0);
        if let Some(time_ns) = started {
            self.witness_time(Mark { time_ns, action: Action::Start, witness, via, exec_id: None }, beginning(run));
        }
        if let Some(time_ns) = finished {
            // While a later run goes on, runtimes still tell when the one before it ended, but no longer how.
            let is_of_this_run = started.is_none_or(|s| s <= time_ns);
            let end = if is_of_this_run { run.clone() } else { Run::default() };
            self.witness_time(Mark { time_ns, action: Action::Die, witness, via, exec_id: None }, end);
        }
        started.is_some() || finished.is_some()
    }

    fn witness_time(&mut self, mark: Mark, run: Run) {
        if !self.is_past(mark.time_ns, mark.action) {
            self.insert(mark, run);
        }
    }

    /// Adds a sighting that only intervals are worked out from, such as a state found in a list.
    pub(super) fn insert(&mut self, mark: Mark, run: Run) {
        match self.sightings.binary_search_by(|s| s.mark.cmp(&mark)) {
            Ok(i) => facts::unite_run(&mut self.sightings[i].run, &run),
            Err(i) => self.sightings.insert(i, Sighting { mark, run, told: false }),
        }
    }

    /// Remembers that an event row was released for the sighting.
    pub(super) fn tell(&mut self, mark: &Mark) {
        if let Ok(i) = self.sightings.binary_search_by(|s| s.mark.cmp(mark)) {
            self.sightings[i].told = true;
        }
    }

    /// Facts of the container itself, from all witnesses.
    pub(super) fn container(&self) -> Details {
        let mut known = facts::merged(&self.facts);
        if let Some((_, name)) = &self.renamed {
            known.name = Some(name.clone());
        }
        known
    }

    /// Its image, as the best witness that knows calls it.
    pub(super) fn image(&self) -> Option<&str> {
        self.facts.values().find_map(|details| details.image.as_deref())
    }

    /// When it was removed, where anybody said so.
    pub(super) fn destroyed_ns(&self) -> Option<Nanos> {
        let removals = self.sightings.iter().filter(|s| s.mark.action == Action::Destroy);
        self.sealed_ns.or(removals.min_by_key(|s| s.mark.channel()).map(|s| s.mark.time_ns))
    }

    /// The newest time at which anything was seen of it.
    pub(super) fn last_seen_ns(&self) -> Option<Nanos> {
        self.sightings.last().map(|s| s.mark.time_ns)
    }
}

/// What a start may say of its run: how it ended is not among it.
fn beginning(run: &Run) -> Run {
    Run { finished_ns: None, exit_code: None, signal: None, oom_killed: None, ..run.clone() }
}

/// What a die may say of its run: asked a moment late, a runtime tells of the next run already.
fn ending(run: &Run, died_ns: Nanos) -> Run {
    if run.started_ns.is_none_or(|started| started <= died_ns) {
        return run.clone();
    }
    Run { exit_code: run.exit_code, signal: run.signal, oom_killed: run.oom_killed, ..Run::default() }
}
