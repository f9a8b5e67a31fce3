//! The blind periods that can still change: what is recovered from them, and what is found to be lost.

use std::collections::VecDeque;

use super::subject::TOLERANCE;
use crate::{container::ContainerKey, feed::Gap, time::Nanos};

/// How many of the newest gaps are kept at hand.
const MOST: usize = 64;

#[derive(Debug)]
struct Tracked {
    gap: Gap,
    /// Containers that were alive before it and gone after it, with an end that nobody knows.
    unknown: Vec<ContainerKey>,
    /// Of what the source itself counted.
    counted: i64,
    recovered: i64,
    is_changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Gaps(VecDeque<Tracked>);

impl Gaps {
    /// Takes a gap, or the end of one that was open.
    pub(super) fn put(&mut self, gap: Gap) {
        let is_same = |t: &&mut Tracked| {
            (&t.gap.source, &t.gap.endpoint, &t.gap.cause, t.gap.from_ns) == (&gap.source, &gap.endpoint, &gap.cause, gap.from_ns)
        };
        if let Some(tracked) = self.0.iter_mut().find(is_same) {
            tracked.counted = tracked.counted.max(gap.recovered);
            tracked.gap = gap;
            tracked.is_changed = true;
            return;
        }
        self.0.push_back(Tracked { counted: gap.recovered, gap, unknown: Vec::new(), recovered: 0, is_changed: true });
        // One that was not written yet is kept a little longer.
        while self.0.len() > MOST && self.0.front().is_some_and(|t| !t.is_changed || self.0.len() > 4 * MOST) {
            self.0.pop_front();
        }
    }

    /// Counts an event that was recovered from a blind period.
    pub(super) fn count_recovered(&mut self, endpoint: &str, time_ns: Nanos) {
        for tracked in self.0.iter_mut().filter(|t| t.covers(endpoint, time_ns)) {
            tracked.recovered += 1;
            tracked.is_changed = true;
        }
    }

    /// Notes a container that vanished, as a list taken at `noticed_ns` shows.
    pub(super) fn note_vanished(&mut self, key: &ContainerKey, noticed_ns: Nanos) {
        if let Some(tracked) = self.0.iter_mut().rev().find(|t| t.is_of(&key.endpoint) && t.gap.from_ns <= noticed_ns)
            && !tracked.unknown.contains(key)
        {
            tracked.unknown.push(key.clone());
            tracked.is_changed = true;
        }
    }

    /// A container that had vanished is known after all.
    pub(super) fn note_found(&mut self, key: &ContainerKey) {
        for tracked in &mut self.0 {
            let before = tracked.unknown.len();
            tracked.unknown.retain(|k| k != key);
            tracked.is_changed |= tracked.unknown.len() != before;
        }
    }

    /// The gaps to be written, as they are now.
    pub(super) fn changed(&self) -> Vec<Gap> {
        self.0.iter().filter(|t| t.is_changed).map(Tracked::gap).collect()
    }

    /// They are written.
    pub(super) fn settle(&mut self) {
        self.0.iter_mut().for_each(|t| t.is_changed = false);
    }
}

impl Tracked {
    /// The recorder's own gaps are of every endpoint.
    fn is_of(&self, endpoint: &str) -> bool {
        self.gap.endpoint.is_empty() || self.gap.endpoint == endpoint
    }

    fn covers(&self, endpoint: &str, time_ns: Nanos) -> bool {
        let to_ns = self.gap.to_ns.unwrap_or(Nanos::MAX);
        self.is_of(endpoint) && time_ns >= self.gap.from_ns.saturating_sub(TOLERANCE) && time_ns <= to_ns.saturating_add(TOLERANCE)
    }

    fn gap(&self) -> Gap {
        let mut gap = Gap { recovered: self.recovered.max(self.counted), ..self.gap.clone() };
        if !self.unknown.is_empty() {
            let separator = if gap.detail.is_empty() { "" } else { "; " };
            gap.detail = format!("{}{separator}{} containers ended unseen, closed as unknown", gap.detail, self.unknown.len());
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_recovered_and_what_is_not() {
        let mut gaps = Gaps::default();
        let gap = |endpoint: &str, to_ns| Gap {
            source: "docker".into(),
            endpoint: endpoint.into(),
            cause: "daemon_down".into(),
            from_ns: 100 * TOLERANCE,
            to_ns,
            recovered: 0,
            detail: String::new(),
        };
        gaps.put(gap("a", None));
        gaps.put(gap("b", None));
        gaps.put(gap("a", Some(200 * TOLERANCE)));
        gaps.count_recovered("a", 150 * TOLERANCE);
        gaps.count_recovered("a", 250 * TOLERANCE);
        let key = ContainerKey { endpoint: "a".into(), ..ContainerKey::default() };
        gaps.note_vanished(&key, 201 * TOLERANCE);
        gaps.note_vanished(&key, 201 * TOLERANCE);
        let changed = gaps.changed();
        assert_eq!((changed.len(), changed[0].recovered, changed[0].to_ns), (2, 1, Some(200 * TOLERANCE)));
        assert_eq!(changed[0].detail, "1 containers ended unseen, closed as unknown");
        gaps.settle();
        assert_eq!(gaps.changed(), []);
        gaps.note_found(&key);
        assert_eq!(gaps.changed()[0].detail, "");
    }
}
