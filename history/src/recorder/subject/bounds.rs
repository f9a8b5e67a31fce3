//! How much evidence is kept of a container, and what is remembered of that which is forgotten: that it is past.

use super::{Subject, mark::is_noise};
use crate::{container::Action, time::Nanos};

/// Sightings of what changes no state (exec, kill, health, …) that are remembered to recognise a replay.
const MOST_NOISE: usize = 128;
/// Sightings that intervals are worked out from; past these the older ones are final.
const MOST_SIGHTINGS: usize = 192;
const MOST_HINTS: usize = 64;

impl Subject {
    /// What it was before is over: keeps what recognises the past as past.
    pub(in crate::recorder) fn reborn(&self, past_ns: Nanos) -> Self {
        Self { key: self.key.clone(), floor_ns: Some(past_ns), noise_floor_ns: Some(past_ns), ..Self::default() }
    }

    pub(super) fn is_past(&self, time_ns: Nanos, action: Action) -> bool {
        let floor = if is_noise(action) { self.noise_floor_ns } else { self.floor_ns };
        // Creation lies before all that was forgotten of a container that lives.
        let is_kept = action == Action::Create && self.sightings.iter().any(|s| s.mark.action == Action::Create);
        self.sealed_ns.is_some() || (!is_kept && floor.is_some_and(|f| time_ns < f))
    }

    /// Forgets everything but that it was.
    pub(in crate::recorder) fn seal(&mut self, past_ns: Nanos) {
        *self = Self { key: self.key.clone(), sealed_ns: Some(past_ns), ..Self::default() };
    }

    /// Forgets the oldest evidence of a container that has too much of it.
    pub(super) fn bound(&mut self) {
        let noise = self.sightings.iter().filter(|s| is_noise(s.mark.action)).count();
        if noise > MOST_NOISE {
            let mut excess = noise - MOST_NOISE / 2;
            let floor = &mut self.noise_floor_ns;
            self.sightings.retain(|s| {
                let drop = excess > 0 && is_noise(s.mark.action);
                if drop {
                    excess -= 1;
                    *floor = (*floor).max(Some(s.mark.time_ns.saturating_add(1)));
                }
                !drop
            });
        }
        if self.sightings.len() - noise.min(self.sightings.len()) > MOST_SIGHTINGS {
            self.finalise();
        }
        if self.hints.len() > MOST_HINTS {
            self.hints.drain(..self.hints.len() - MOST_HINTS / 2);
        }
    }

    /// Makes the older half of the intervals final.
    fn finalise(&mut self) {
        let spans = self.intervals();
        let Some(floor) = spans.get(spans.len() / 2).map(|s| s.from_ns) else { return };
        let first_run = self.course().first_mark_of_run_at(floor);
        self.sightings.retain(|s| match s.mark.action {
            Action::Create | Action::Destroy => true,
            Action::Start | Action::Die => s.mark.time_ns >= first_run,
            Action::Pause | Action::Unpause | Action::Oom => s.mark.time_ns >= floor,
            _ => true,
        });
        self.hints.retain(|(key, _)| key.at.is_none_or(|at| at >= first_run));
        self.heard.retain(|heard| heard.run_ns >= first_run);
        self.floor_ns = self.floor_ns.max(Some(floor));
        self.written.retain(|(from, _)| *from >= floor);
    }
}
