//! Who may open a device: that may block as long as the device does, for ever in the worst case, and each holds a thread.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Disks that are looked into at once, of all sources together.
const MOST: usize = 4;
/// A look may take this long; whoever takes longer is not waited for.
pub(crate) const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// All that is looked into now.
static TURNS: Turns = Turns { begun: Mutex::new(BTreeMap::new()), ended: Condvar::new(), within: LOOK_WITHIN };

#[derive(Debug)]
struct Turns {
    /// The disks, and since when.
    begun: Mutex<BTreeMap<PathBuf, Instant>>,
    ended: Condvar,
    within: Duration,
}

/// Lasts as long as the look does, however long that is.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    disk: PathBuf,
}

/// A turn at the disk of that folder. Blocks while others look; `None`: the disk, or too many others, do not answer.
pub(super) fn turn(disk: &Path) -> Option<Turn<'static>> {
    TURNS.take(disk)
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, disk: &Path) -> Option<Turn<'_>> {
        let mut begun = self.lock();
        loop {
            let last = match begun.get(disk) {
                Some(theirs) => Some(*theirs),
                None if begun.len() >= MOST => begun.values().max().copied(),
                None => None,
            };
            let Some(last) = last else { break };
            let left = self.within.checked_sub(last.elapsed()).filter(|left| !left.is_zero())?;
            begun = self.ended.wait_timeout(begun, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        begun.insert(disk.to_owned(), Instant::now());
        Some(Turn { turns: self, disk: disk.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.disk);
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn turns(within: Duration) -> Turns {
        Turns { begun: Mutex::default(), ended: Condvar::new(), within }
    }

    #[test]
    fn a_disk_that_hangs_holds_one_look_and_others_only_when_they_are_too_many() {
        let turns = turns(Duration::from_millis(20));
        let take = |disk: &str| turns.take(Path::new(disk));
        let hangs = take("a").unwrap();
        assert!(take("a").is_none(), "it was waited for");
        let began = Instant::now();
        assert!(take("a").is_none());
        assert!(began.elapsed() < Duration::from_secs(1), "and is so no longer");
        let _others = ["b", "c", "d"].map(|disk| take(disk).unwrap());
        assert!(take("e").is_none(), "there are as many threads as there may be");
        drop(hangs);
        assert!(take("e").is_some());
    }

    #[test]
    fn whoever_comes_to_a_disk_that_answers_has_its_turn_after_the_other() {
        let turns = turns(Duration::from_secs(60));
        let first = turns.take(Path::new("a")).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| turns.take(Path::new("a")).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
