//! Whose processes run: the ids of the host's users and groups that records name, for whoever finds out what they are called.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use foldhash::HashMap;

use crate::time::Nanos;

/// An id that was told is not told again within this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Most ids that are remembered for that; of more, none is told before others are old.
const MOST: usize = 4096;
/// So often, where these are many, the old ones are looked for: not at each record.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);
/// Most ids that wait to be taken. What finds no room is told with its next record.
const MOST_WAITING: usize = 256;

/// An id that a record named, and when that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenId {
    pub id: u32,
    pub at_ns: Nanos,
}

/// The ids of users and those of groups.
#[derive(Debug, Default)]
pub(super) struct SeenAccounts {
    pub(super) users: SeenIds,
    pub(super) groups: SeenIds,
}

/// The ids that records name, each once in a while. Cheap to clone; fed by the recorder, read by one who follows it.
#[derive(Clone, Debug, Default)]
pub struct SeenIds(Arc<Mutex<Seen>>);

type Watcher = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Seen {
    told: HashMap<u32, Instant>,
    swept: Option<Instant>,
    waiting: Vec<SeenId>,
    /// Without one, nothing is kept.
    watcher: Option<Watcher>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("told", &self.told.len()).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl SeenIds {
    /// Calls `told` when there is something to take, from now on. On the recorder's own thread, so that it must only wake somebody.
    pub fn on_seen(&self, told: impl Fn() + Send + Sync + 'static) {
        self.change(|seen| seen.watcher = Some(Arc::new(told)));
    }

    /// A record of something that happened at `at_ns` names whoever has that id.
    pub fn see(&self, id: i64, at_ns: Nanos, now: Instant) {
        let Ok(id) = u32::try_from(id) else { return };
        let told = self.change(|seen| seen.note(SeenId { id, at_ns }, now).then(|| seen.watcher.clone()).flatten());
        if let Some(told) = told {
            told();
        }
    }

    /// What was seen since the last call, the first first.
    pub fn take(&self) -> Vec<SeenId> {
        self.change(|seen| std::mem::take(&mut seen.waiting))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// True: it is news.
    fn note(&mut self, seen: SeenId, now: Instant) -> bool {
        let is_old = |told: &Instant| now.saturating_duration_since(*told) >= AGAIN_AFTER;
        if self.watcher.is_none() || self.told.get(&seen.id).is_some_and(|told| !is_old(told)) || self.waiting.len() >= MOST_WAITING {
            return false;
        }
        if self.told.len() >= MOST && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= BETWEEN_SWEEPS) {
            self.told.retain(|_, told| !is_old(told));
            self.swept = Some(now);
        }
        if self.told.len() >= MOST {
            return false;
        }
        self.told.insert(seen.id, now);
        self.waiting.push(seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn an_id_is_told_once_in_a_while_with_the_time_of_its_first_record() {
        let (seen, woken, begun) = (SeenIds::default(), Arc::new(AtomicUsize::new(0)), Instant::now());
        seen.see(7, 1, begun);
        assert!(seen.take().is_empty(), "nobody follows");
        let counter = Arc::clone(&woken);
        seen.on_seen(move || {
            counter.fetch_add(1, Relaxed);
        });
        for (id, at_ns) in [(7, 2), (7, 3), (8, 4), (-1, 5), (i64::MAX, 6)] {
            seen.see(id, at_ns, begun);
        }
        assert_eq!(seen.take(), [SeenId { id: 7, at_ns: 2 }, SeenId { id: 8, at_ns: 4 }]);
        assert_eq!(woken.load(Relaxed), 2);
        seen.see(7, 9, begun + AGAIN_AFTER - Duration::from_nanos(1));
        seen.see(7, 10, begun + AGAIN_AFTER);
        assert_eq!(seen.take(), [SeenId { id: 7, at_ns: 10 }]);
    }

    #[test]
    fn a_process_that_changes_its_id_all_the_time_costs_no_memory_and_no_other_its_turn() {
        let (seen, begun) = (SeenIds::default(), Instant::now());
        seen.on_seen(|| ());
        (0..10_000).for_each(|id| seen.see(id, 1, begun));
        assert_eq!(seen.take().len(), MOST_WAITING);
        seen.see(100_001, 2, begun);
        assert_eq!(seen.take(), [SeenId { id: 100_001, at_ns: 2 }]);
        for id in 0..10_000 {
            seen.see(id, 1, begun);
            seen.take();
        }
        assert_eq!(seen.change(|seen| seen.told.len()), MOST);
        seen.see(200_000, 3, begun + AGAIN_AFTER);
        assert_eq!(seen.take(), [SeenId { id: 200_000, at_ns: 3 }]);
    }
}
