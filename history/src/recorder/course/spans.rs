//! The intervals that follow from a course: its states one after the other.

use std::collections::BTreeSet;

use super::{Course, Group, Stretch};
use crate::{
    container::{Details, Run, State, Witness},
    recorder::subject::{Sighting, Subject, Via},
    time::Nanos,
};

/// One interval of `container_history`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::recorder) struct Span {
    pub(in crate::recorder) from_ns: Nanos,
    pub(in crate::recorder) to_ns: Option<Nanos>,
    pub(in crate::recorder) state: State,
    pub(in crate::recorder) ended_reason: &'static str,
    /// Who saw it: comma-separated, sorted.
    pub(in crate::recorder) evidence: String,
    pub(in crate::recorder) details: Details,
}

/// A state from when it began.
#[derive(Debug)]
pub(super) struct Segment {
    from_ns: Nanos,
    pub(super) state: State,
    run: Option<usize>,
    cause: &'static str,
}

impl Subject {
    pub(in crate::recorder) fn intervals(&self) -> Vec<Span> {
        self.course().intervals()
    }
}

impl Course<'_> {
    fn end_of_life(&self) -> (Option<Nanos>, &'static str) {
        if let Some(destroyed) = self.destroyed.best_ns() {
            return (Some(destroyed), "destroyed");
        }
        let gone = self.subject.gone_ns.filter(|gone| self.subject.last_seen_ns().is_none_or(|seen| seen <= *gone));
        (gone, "unknown")
    }

    /// The states one after the other, each with when it began and why.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut enter = |from: Nanos, state: State, run: Option<usize>, cause: &'static str| {
            let from_ns = segments.last().map_or(from, |last| last.from_ns.max(from));
            segments.push(Segment { from_ns, state, run, cause });
        };
        let first_run_ns = self.runs.first().and_then(|r| r.start_ns().or(r.end_ns()));
        if let Some(created) = self.created.best_ns() {
            enter(first_run_ns.map_or(created, |run| run.min(created)), State::Created, None, "created");
        }
        for (i, run) in self.runs.iter().enumerate() {
            if let Some(start) = run.start_ns() {
                // A run that begins while the one before goes on: nobody saw that one end.
                enter(start, State::Running, Some(i), "started");
                let until = run.end_ns().or_else(|| self.runs.get(i + 1).and_then(Stretch::start_ns)).unwrap_or(Nanos::MAX);
                for (at, state) in self.pauses_between(start, until) {
                    enter(at, state, Some(i), if state == State::Paused { "paused" } else { "unpaused" });
                }
            }
            if let Some(end) = run.end_ns() {
                let cause = if self.is_oom(i, &run.facts()) == Some(true) { "oom_killed" } else { "exited" };
                enter(end, State::Exited, Some(i), cause);
            }
        }
        segments
    }

    /// Changes between running and paused, each a real change.
    fn pauses_between(&self, from: Nanos, until: Nanos) -> Vec<(Nanos, State)> {
        let times = |groups: &[Group<'_>], state| groups.iter().filter_map(Group::best_ns).map(|t| (t, state)).collect::<Vec<_>>();
        let mut changes = times(&self.pauses, State::Paused);
        changes.extend(times(&self.unpauses, State::Running));
        changes.retain(|(t, _)| *t >= from && *t < until);
        changes.sort_unstable();
        let mut now = State::Running;
        changes.retain(|(_, state)| std::mem::replace(&mut now, *state) != *state);
        changes
    }

    fn intervals(&self) -> Vec<Span> {
        let segments = self.segments();
        let (end_ns, end_cause) = self.end_of_life();
        let floor = self.subject.floor_ns.unwrap_or(Nanos::MIN);
        let mut container = self.subject.container();
        container.created_ns = self.created.best_ns();
        let mut spans = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1);
            let to_ns = next.map(|n| n.from_ns).or(end_ns.map(|end| end.max(segment.from_ns)));
            let from_ns = segment.from_ns.max(floor);
            if to_ns.is_some_and(|to| to <= from_ns) {
                continue;
            }
            let ended_reason = match (next, to_ns) {
                (Some(next), _) if next.run != segment.run && matches!(segment.state, State::Running | State::Paused) => "unknown",
                (Some(next), _) => next.cause,
                (None, Some(_)) => end_cause,
                (None, None) => "",
            };
            spans.push(Span {
                from_ns,
                to_ns,
                state: segment.state,
                ended_reason,
                evidence: self.evidence(segment),
                details: Details { run: self.run_in(segment), ..container.clone() },
            });
        }
        spans
    }

    /// The facts of the run that hold in a state: a process that ended has no pid and no address any more.
    pub(super) fn run_in(&self, segment: &Segment) -> Run {
        let Some(i) = segment.run else { return Run::default() };
        let run = self.runs[i].facts();
        if segment.state != State::Exited {
            return Run { finished_ns: None, exit_code: None, signal: None, oom_killed: None, ..run };
        }
        let oom_killed = self.is_oom(i, &run);
        Run {
            started_ns: run.started_ns,
            finished_ns: run.finished_ns,
            exit_code: run.exit_code,
            signal: run.signal,
            oom_killed,
            ..Run::default()
        }
    }

    fn evidence(&self, segment: &Segment) -> String {
        let who = |s: &&Sighting| if s.mark.via == Via::Listed { Witness::Reconcile } else { s.mark.witness };
        let witnesses: BTreeSet<&str> = match segment.run {
            None => self.created.0.iter().map(|s| who(s).as_str()).collect(),
            Some(i) => {
                let run = &self.runs[i];
                let hints = run.hints.iter().map(|(w, _)| w.as_str());
                run.starts.0.iter().chain(&run.dies.0).map(|s| who(s).as_str()).chain(hints).collect()
            }
        };
        witnesses.into_iter().collect::<Vec<_>>().join(",")
    }
}
