//! When evidence is forgotten: how long that of a container which ended is kept, and how much at once.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Ledger, Moment};
use crate::{container::ContainerKey, recorder::subject::Ending, time::Nanos};

/// How long evidence of a container that was removed is kept, for witnesses that are late.
const LINGER: Duration = Duration::from_secs(60);
/// The same for one that only vanished: it may be found again.
const LINGER_GONE: Duration = Duration::from_secs(600);
/// Removed containers that are remembered, so that no replay (Docker's holds 256 events) takes them for new.
const MOST_SEALED: usize = 2048;
/// Containers of one endpoint that are followed at once; of more, those that were first seen long ago are given up: whoever has a
/// runtime of their own could invent any number.
pub(super) const MOST_LIVING: usize = 8192;
/// Ended containers whose evidence is kept; of more, the oldest are sealed before their time.
const MOST_ENDING: usize = 512;

impl Ledger {
    /// Gives up the containers that an endpoint has too many of, as if they had vanished; whether there were any.
    pub(super) fn bound_living(&mut self, endpoint: &Arc<str>, now: Moment) -> bool {
        let Some(living) = self.living.get_mut(endpoint).filter(|living| living.len() > MOST_LIVING) else { return false };
        living.retain(|key| self.entries.get(key).is_some_and(|e| e.subject.is_alive()));
        let excess = living.len().saturating_sub(MOST_LIVING - MOST_LIVING / 16);
        let given_up: Vec<_> = living.drain(..if living.len() > MOST_LIVING { excess } else { 0 }).collect();
        for key in &given_up {
            if let Some(subject) = self.subject_mut(key) {
                subject.gone_ns = Some(now.wall_ns);
            }
            self.touch(key);
        }
        !given_up.is_empty()
    }

    pub(super) fn watch_ending(&mut self, key: &ContainerKey, now: Moment) {
        let Some(entry) = self.entries.get_mut(key).filter(|e| !e.ending && e.subject.sealed_ns.is_none()) else { return };
        let linger = match entry.subject.ending() {
            Some(Ending::Removed(_) | Ending::Hearsay) => LINGER,
            Some(Ending::Gone(_) | Ending::Left) => LINGER_GONE,
            None => return,
        };
        entry.ending = true;
        self.ending.push_back((now.at + linger, key.clone()));
    }

    /// Whether a sweep cannot wait.
    pub(in crate::recorder) fn is_crowded(&self) -> bool {
        self.ending.len() > 2 * MOST_ENDING
    }

    /// Forgets the evidence of containers that ended a while ago. Called now and then.
    pub(in crate::recorder) fn sweep(&mut self, now: Moment) {
        let excess = self.ending.len().saturating_sub(MOST_ENDING);
        let mut due: Vec<_> = self.ending.drain(..excess).collect();
        let (overdue, later): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.ending).into_iter().partition(|(at, _)| *at <= now.at);
        self.ending = later;
        due.extend(overdue);
        self.seal(due, now);
        for entry in self.entries.values_mut() {
            if entry.bucket.is_some_and(|b| b.window_ends().is_none()) && entry.held.is_empty() {
                entry.bucket = entry.bucket.filter(|b| !b.is_full(now.at));
            }
        }
    }

    /// While the store takes nothing, memory is bounded all the same: seals the oldest of those that ended, though how they ended
    /// may not be written. Returns them, and when they ended.
    pub(in crate::recorder) fn seal_oldest(&mut self, now: Moment) -> Vec<(ContainerKey, Nanos)> {
        let excess = self.ending.len().saturating_sub(MOST_ENDING);
        let oldest: Vec<_> = self.ending.drain(..excess).collect();
        self.seal(oldest, now)
    }

    fn seal(&mut self, due: Vec<(Instant, ContainerKey)>, now: Moment) -> Vec<(ContainerKey, Nanos)> {
        let mut ended = Vec::new();
        for (_, key) in due {
            self.close_window(&key, now, true);
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.ending = false;
            let past = match entry.subject.ending() {
                Some(Ending::Removed(past) | Ending::Gone(past)) if entry.held.is_empty() => past,
                Some(Ending::Hearsay | Ending::Left) => {
                    entry.subject.gone_ns = Some(now.wall_ns);
                    self.touch(&key);
                    continue;
                }
                _ => continue,
            };
            // Whoever sweeps has committed before, so that its last intervals are in the store.
            entry.subject.seal(past);
            entry.bucket = None;
            if key.endpoint.is_empty() {
                self.kernel_only.remove(&key.container_id);
            }
            self.output.dirty.insert(key.clone());
            ended.push((key.clone(), past));
            self.sealed.push_back(key);
        }
        while self.sealed.len() > MOST_SEALED
            && let Some(key) = self.sealed.pop_front()
        {
            self.remove(&key);
        }
        ended
    }
}
