//! The course of a container's life, worked out from its evidence: which sightings mean the same event, which run they
//! belong to, and the intervals that follow. Pure: the same evidence gives the same course, in whatever order it came.

mod spans;

use std::iter;

pub(super) use self::spans::Span;
use super::{
    facts,
    heard::Heard,
    subject::{Mark, Sighting, Subject, TOLERANCE, Via, is_exec},
};
use crate::{
    container::{Action, Details, Run, State, Witness},
    time::Nanos,
};

/// Sightings of one event by different witnesses, by time.
#[derive(Debug, Default)]
struct Group<'s>(Vec<&'s Sighting>);

/// One run of a container: from a start to the die that ends it.
#[derive(Debug, Default)]
struct Stretch<'s> {
    starts: Group<'s>,
    dies: Group<'s>,
    /// Facts of it that say no time.
    hints: Vec<(Witness, &'s Run)>,
    heard: Vec<&'s Heard>,
}

#[derive(Debug)]
pub(super) struct Course<'s> {
    subject: &'s Subject,
    created: Group<'s>,
    destroyed: Group<'s>,
    /// By time.
    runs: Vec<Stretch<'s>>,
    pauses: Vec<Group<'s>>,
    unpauses: Vec<Group<'s>>,
    ooms: Vec<Group<'s>>,
}

impl<'s> Group<'s> {
    fn first_ns(&self) -> Option<Nanos> {
        self.0.first().map(|s| s.mark.time_ns)
    }

    fn has(&self, sighting: &Sighting) -> bool {
        self.0.iter().any(|s| s.mark.channel() == sighting.mark.channel())
    }

    /// The time that the best witness gives.
    fn best_ns(&self) -> Option<Nanos> {
        self.0.iter().min_by_key(|s| s.mark.channel()).map(|s| s.mark.time_ns)
    }

    /// The same, but not after `limit` if any witness puts it before: clocks of two witnesses may cross in a short run.
    fn best_ns_before(&self, limit: Option<Nanos>) -> Option<Nanos> {
        let best = self.best_ns()?;
        match limit {
            Some(limit) if best > limit => self.first_ns(),
            _ => Some(best),
        }
    }

    fn pids(&self) -> impl Iterator<Item = i64> {
        self.0.iter().filter_map(|s| s.run.pid)
    }

    fn contains(&self, mark: &Mark) -> bool {
        self.0.iter().any(|s| s.mark == *mark)
    }

    fn add(&mut self, sighting: &'s Sighting) {
        let at = self.0.partition_point(|s| s.mark < sighting.mark);
        self.0.insert(at, sighting);
    }
}

/// Joins a sighting, later than all before, to the newest group that may mean the same; else it begins one.
fn join<'s>(groups: &mut Vec<Group<'s>>, sighting: &'s Sighting) {
    let pid = sighting.run.pid;
    let is_same = |g: &Group<'_>| !g.has(sighting) && pid.is_some_and(|p| g.pids().any(|other| other == p));
    let may_be = |g: &Group<'_>| {
        let is_other = pid.is_some_and(|p| g.pids().any(|other| other != p));
        let is_near = g.first_ns().is_some_and(|first| sighting.mark.time_ns.saturating_sub(first) <= TOLERANCE);
        !g.has(sighting) && !is_other && is_near
    };
    let at = groups.iter().rposition(is_same).or_else(|| groups.iter().rposition(may_be));
    match at {
        Some(at) => groups[at].add(sighting),
        None => groups.push(Group(vec![sighting])),
    }
}

impl<'s> Stretch<'s> {
    fn pids(&self) -> impl Iterator<Item = i64> {
        self.starts.pids().chain(self.dies.pids())
    }

    fn first_ns(&self) -> Option<Nanos> {
        self.starts.first_ns().or(self.dies.first_ns())
    }

    fn start_ns(&self) -> Option<Nanos> {
        self.starts.best_ns_before(self.dies.best_ns())
    }

    fn end_ns(&self) -> Option<Nanos> {
        self.dies.best_ns()
    }

    fn sightings(&self) -> impl Iterator<Item = &'s Sighting> {
        self.starts.0.iter().chain(&self.dies.0).copied()
    }

    /// Everything known of the run.
    fn facts(&self) -> Run {
        let mut said: Vec<_> = self.sightings().map(|s| (s.mark.witness, &s.run)).chain(self.hints.iter().copied()).collect();
        said.sort_by_key(|(witness, _)| *witness);
        let mut known = Run::default();
        for by_one in said.chunk_by(|(one, _), (other, _)| one == other) {
            let mut run = Run::default();
            by_one.iter().for_each(|(_, more)| facts::unite_run(&mut run, more));
            facts::complete_run(&mut known, &run);
        }
        let asked = |group: &Group<'_>| {
            group.0.iter().filter(|s| s.mark.via != Via::Stream).min_by_key(|s| s.mark.channel()).map(|s| s.mark.time_ns)
        };
        known.started_ns = asked(&self.starts).or(self.start_ns());
        known.finished_ns = asked(&self.dies).or(self.end_ns());
        // Containers that share a namespace may have told only one of them; and one that lives for a millisecond, none.
        if known.ip_addresses.is_empty() && !self.heard.is_empty() {
            let ip_addresses = self.heard.iter().map(|heard| heard.ip.to_string()).collect();
            let mac_addresses = self.heard.iter().filter_map(|heard| heard.mac.clone()).collect();
            facts::complete_run(&mut known, &Run { ip_addresses, mac_addresses, ..Run::default() });
        }
        if known.signal.is_none() {
            known.signal = known.exit_code.and_then(signal_of);
        }
        known
    }
}

/// Shells and runtimes report death by signal n as status 128 + n.
const fn signal_of(exit_code: i64) -> Option<i64> {
    match exit_code {
        129..=192 => Some(exit_code - 128),
        _ => None,
    }
}

impl Subject {
    pub(super) fn course(&self) -> Course<'_> {
        let mut course = Course {
            subject: self,
            created: Group::default(),
            destroyed: Group::default(),
            runs: Vec::new(),
            pauses: Vec::new(),
            unpauses: Vec::new(),
            ooms: Vec::new(),
        };
        let mut starts = Vec::new();
        for sighting in &self.sightings {
            match sighting.mark.action {
                Action::Create => course.created.add(sighting),
                Action::Destroy => course.destroyed.add(sighting),
                Action::Start => join(&mut starts, sighting),
                Action::Pause => join(&mut course.pauses, sighting),
                Action::Unpause => join(&mut course.unpauses, sighting),
                Action::Oom => join(&mut course.ooms, sighting),
                _ => {}
            }
        }
        course.runs = starts.into_iter().map(|starts| Stretch { starts, ..Stretch::default() }).collect();
        for sighting in self.sightings.iter().filter(|s| s.mark.action == Action::Die) {
            course.end_run(sighting);
        }
        for (key, run) in &self.hints {
            let at = match (key.pid, key.at) {
                (Some(pid), _) => course.runs.iter().rposition(|r| r.pids().any(|p| p == pid)),
                (None, Some(at)) => course.run_at(at),
                (None, None) => course.runs.len().checked_sub(1),
            };
            if let Some(at) = at {
                course.runs[at].hints.push((key.witness, run));
            }
        }
        for heard in &self.heard {
            if let Some(at) = course.run_at(heard.run_ns) {
                course.runs[at].heard.push(heard);
            }
        }
        course
    }
}

impl<'s> Course<'s> {
    /// Finds the run that a die ends: by its pid, by its StartedAt, else the newest one before it; a witness that tells starts
    /// late may tell it a little after.
    fn end_run(&mut self, die: &'s Sighting) {
        let (time_ns, pid) = (die.mark.time_ns, die.run.pid);
        let is_free = |r: &Stretch<'_>| !r.dies.has(die) && !pid.is_some_and(|p| r.pids().any(|other| other != p));
        let has_pid = |r: &Stretch<'_>| pid.is_some_and(|p| r.pids().any(|other| other == p));
        let has_start = |r: &Stretch<'_>| die.run.started_ns.is_some_and(|t| r.starts.0.iter().any(|s| s.mark.time_ns == t));
        let runs = &self.runs;
        let at = runs
            .iter()
            .rposition(|r| is_free(r) && has_pid(r))
            .or_else(|| runs.iter().rposition(|r| is_free(r) && has_start(r)))
            .or_else(|| runs.iter().rposition(|r| is_free(r) && r.first_ns().is_some_and(|t| t <= time_ns)))
            .or_else(|| runs.iter().position(|r| is_free(r) && r.first_ns().is_some_and(|t| t > time_ns && t - time_ns <= TOLERANCE)));
        match at {
            Some(at) => self.runs[at].dies.add(die),
            // Its start was never seen.
            None => {
                let at = self.runs.partition_point(|r| r.first_ns().is_some_and(|t| t <= time_ns));
                self.runs.insert(at, Stretch { dies: Group(vec![die]), ..Stretch::default() });
            }
        }
    }

    /// The run that went on at that time, or was the last to.
    fn run_at(&self, time_ns: Nanos) -> Option<usize> {
        self.runs.iter().rposition(|r| r.first_ns().is_some_and(|t| t <= time_ns))
    }

    fn run_of(&self, mark: &Mark) -> Option<usize> {
        match mark.action {
            Action::Create => None,
            Action::Start => self.runs.iter().position(|r| r.starts.contains(mark)),
            Action::Die => self.runs.iter().position(|r| r.dies.contains(mark)),
            _ => self.run_at(mark.time_ns),
        }
    }

    /// Time of the oldest sighting of the run that went on at that time.
    pub(super) fn first_mark_of_run_at(&self, time_ns: Nanos) -> Nanos {
        self.run_at(time_ns).and_then(|i| self.runs[i].first_ns()).unwrap_or(time_ns)
    }

    /// The sightings that mean the same event, the given one among them.
    pub(super) fn kin(&self, mark: &Mark) -> Vec<&'s Sighting> {
        let among = |groups: &[Group<'s>]| groups.iter().find(|g| g.contains(mark)).map(|g| g.0.clone()).unwrap_or_default();
        match mark.action {
            Action::Create => self.created.0.clone(),
            Action::Destroy => self.destroyed.0.clone(),
            Action::Start => self.run_of(mark).map(|i| self.runs[i].starts.0.clone()).unwrap_or_default(),
            Action::Die => self.run_of(mark).map(|i| self.runs[i].dies.0.clone()).unwrap_or_default(),
            Action::Pause => among(&self.pauses),
            Action::Unpause => among(&self.unpauses),
            Action::Oom => among(&self.ooms),
            action if is_exec(action) => {
                let is_kin = |s: &&Sighting| {
                    s.mark.action == action && s.mark.exec_id == mark.exec_id && (mark.exec_id.is_some() || s.mark == *mark)
                };
                self.subject.sightings.iter().filter(is_kin).collect()
            }
            // What only one runtime tells, and may tell again.
            _ => self.subject.sightings.iter().filter(|s| s.mark == *mark).collect(),
        }
    }

    /// Sightings of creations, starts and dies: what a list of all containers may reveal.
    pub(super) fn turning_points(&self) -> impl Iterator<Item = (Action, &[&'s Sighting])> {
        let runs = self.runs.iter().flat_map(|r| [(Action::Start, r.starts.0.as_slice()), (Action::Die, r.dies.0.as_slice())]);
        iter::once((Action::Create, self.created.0.as_slice())).chain(runs).filter(|(_, group)| !group.is_empty())
    }

    /// Time of the start that a die must not come before in the order of rows.
    pub(super) fn start_of(&self, mark: &Mark) -> Option<Nanos> {
        self.run_of(mark).and_then(|i| self.runs[i].start_ns())
    }

    /// The time that the best witness gives of the start before a die: that of its row.
    pub(super) fn told_start_of(&self, mark: &Mark) -> Option<Nanos> {
        self.run_of(mark).and_then(|i| self.runs[i].starts.best_ns())
    }

    /// Facts of the newest run.
    pub(super) fn newest_run(&self) -> Run {
        self.runs.last().map(Stretch::facts).unwrap_or_default()
    }

    /// The state after all that is known.
    pub(super) fn state(&self) -> State {
        self.segments().last().map(|s| s.state).unwrap_or_default()
    }

    /// Everything known of the container at an event, and of the run that the event belongs to.
    pub(super) fn details_at(&self, mark: &Mark) -> Details {
        let mut details = self.subject.container();
        details.created_ns = self.created.best_ns();
        if mark.action == Action::Existing {
            details.run = self.segments().last().map(|segment| self.run_in(segment)).unwrap_or_default();
        } else if let Some(i) = self.run_of(mark) {
            let run = self.runs[i].facts();
            details.run = match mark.action {
                Action::Die => Run { oom_killed: self.is_oom(i, &run), ..run },
                _ => Run { exit_code: None, signal: None, oom_killed: None, finished_ns: None, ..run },
            };
        }
        details
    }

    /// Milliseconds that the run of a die lasted.
    pub(super) fn lifetime_ms(&self, mark: &Mark) -> Option<i64> {
        let run = &self.runs[self.run_of(mark)?];
        let (start, end) = (run.start_ns()?, run.end_ns()?);
        Some((end - start).max(0) / 1_000_000)
    }

    fn is_oom(&self, run: usize, facts: &Run) -> Option<bool> {
        let was_killed = facts.signal.is_none_or(|s| s == 9);
        let saw = self.ooms.iter().any(|g| g.first_ns().is_some_and(|t| self.run_at(t) == Some(run)));
        if saw && was_killed { Some(true) } else { facts.oom_killed }
    }
}
