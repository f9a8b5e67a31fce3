//! Events that wait a moment for the details that belong in their row, and for a better witness of the same event.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    course::Course,
    subject::{Mark, is_dockers_means, is_exec},
};
use crate::{
    container::{Action, ContainerEvent, Details, Run, Witness},
    feed::Feed,
    time::Nanos,
};

/// The longest that an event waits, counted from the runtime's own time.
pub(super) const HOLD: Duration = Duration::from_millis(250);
/// What an event that came late still waits at least, counted from its receipt: other witnesses may be late alike.
const SHORTEST_HOLD: Duration = Duration::from_millis(100);

/// An event that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) event: Box<ContainerEvent>,
    pub(super) mark: Mark,
    /// One for each report that this row stands for.
    pub(super) feeds: Vec<Feed>,
    pub(super) due: Instant,
}

/// An event row to be stored.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Box<ContainerEvent>,
    pub(super) feeds: Vec<Feed>,
}

/// When an event that happened at `time_ns` has waited long enough.
pub(super) fn due(time_ns: Nanos, now: Instant, wall_ns: Nanos) -> Instant {
    let late = Duration::from_nanos(u64::try_from(wall_ns.saturating_sub(time_ns)).unwrap_or(0));
    now + HOLD.saturating_sub(late).clamp(SHORTEST_HOLD, HOLD)
}

impl Held {
    /// Another witness told the same event: the better one's time and words stand.
    pub(super) fn merge(&mut self, other: Box<ContainerEvent>, mark: Mark, feed: Option<Feed>) {
        self.feeds.extend(feed);
        let recovered = self.event.recovered && other.recovered;
        if other.source < self.event.source {
            let lesser = std::mem::replace(&mut self.event, other);
            self.mark = mark;
            fill_attributes(&mut self.event.attributes, lesser.attributes);
        } else {
            self.event.settled |= other.settled && other.source == self.event.source;
            fill_attributes(&mut self.event.attributes, other.attributes);
        }
        self.event.recovered = recovered;
    }

    /// Another row that waits turned out to be the same event.
    pub(super) fn join(&mut self, other: Self) {
        self.feeds.extend(other.feeds);
        self.merge(other.event, other.mark, None);
    }

    /// Whether its row can be written now, all that it needs being known.
    pub(super) fn is_ready(&self, course: &Course<'_>) -> bool {
        // Found in a list: the stream, or its replay, may be about to tell it better.
        if self.event.source == Witness::Reconcile || self.event.action == Action::Existing {
            return false;
        }
        // Its runtime is about to tell the same with more details.
        if self.event.source == Witness::Ebpf {
            return false;
        }
        // So is Docker.
        if is_dockers_means(&self.event.key, self.event.source) {
            return false;
        }
        self.event.settled || is_complete(self.event.action, &course.details_at(&self.mark))
    }

    /// When it happened, as its row says. The kernel knows of a death before a runtime knows of the start.
    fn told_ns(&self, course: &Course<'_>) -> Nanos {
        let start =
            if self.event.action == Action::Die && self.event.source == Witness::Ebpf { course.told_start_of(&self.mark) } else { None };
        start.map_or(self.event.time_ns, |start| start.max(self.event.time_ns))
    }

    /// Place among the events of its container: in the order of life, also where the clocks of two witnesses cross.
    pub(super) fn order(&self, course: &Course<'_>) -> (Nanos, Action) {
        let told_ns = self.told_ns(course);
        let time_ns = match self.event.action {
            Action::Die | Action::Destroy => course.start_of(&self.mark).map_or(told_ns, |start| start.max(told_ns)),
            _ => told_ns,
        };
        (time_ns, self.event.action)
    }

    /// The row, with everything that is known of the container and its run by now.
    pub(super) fn complete(mut self, course: &Course<'_>) -> Told {
        let own = std::mem::take(&mut self.event.details.run);
        let mut details = course.details_at(&self.mark);
        if is_exec(self.event.action) {
            // The process that was executed, not the container's.
            details.run = Run { pid: own.pid, exit_code: own.exit_code, signal: own.signal, ..details.run };
        }
        self.event.details = details;
        self.event.time_ns = self.told_ns(course);
        if self.event.action == Action::Die {
            self.event.lifetime_ms = course.lifetime_ms(&self.mark);
        }
        Told { event: self.event, feeds: self.feeds }
    }
}

fn fill_attributes(better: &mut BTreeMap<String, String>, lesser: BTreeMap<String, String>) {
    for (key, value) in lesser {
        better.entry(key).or_insert(value);
    }
}

/// Whether nothing is missing that an inspect can still tell.
fn is_complete(action: Action, details: &Details) -> bool {
    let has_image = details.image.is_some() && (details.image_id.is_some() || details.image_digest.is_some());
    let run = &details.run;
    let has_address = !run.ip_addresses.is_empty() || details.network_mode.as_deref().is_some_and(has_no_own_address);
    match action {
        Action::Start => has_image && run.pid.is_some() && has_address,
        Action::Die => has_image && run.exit_code.is_some(),
        // Only who was asked about the container tells this.
        Action::Create => has_image && details.privileged.is_some(),
        _ => has_image,
    }
}

/// Modes in which a container has no address that its runtime could tell.
fn has_no_own_address(mode: &str) -> bool {
    matches!(mode, "none" | "host" | "private" | "pasta" | "slirp4netns") || mode.starts_with("container:") || mode.starts_with("ns:")
}
