//! How often a trigger may fire.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use mayfly_history::Cell;

/// Values whose cooldown is remembered; of more, the oldest may fire again early.
const MOST_VALUES: usize = 8192;
const MINUTE: Duration = Duration::from_secs(60);

/// An event's values, as a cooldown tells them apart: two hashes of them, whatever their length. Nobody can choose values whose hashes are equal.
type Values = [u64; 2];

/// What a trigger did lately.
#[derive(Debug, Default)]
pub(super) struct Gate {
    keys: [RandomState; 2],
    cooling: HashSet<Values>,
    /// The same in the order in which they fired.
    fired_for: VecDeque<(Instant, Values)>,
    fired: VecDeque<Instant>,
}

/// Why an event does not fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shed {
    Cooldown,
    MaxPerMinute,
}

impl Gate {
    /// Lets an event through, or not; `values` are those of the columns that have a cooldown each.
    pub(super) fn pass<'c>(
        &mut self,
        cooldown: Duration,
        max_per_minute: Option<usize>,
        values: impl Iterator<Item = Cell<'c>>,
        at: Instant,
    ) -> Result<(), Shed> {
        while let Some((fired, values)) = self.fired_for.front() {
            if at.saturating_duration_since(*fired) < cooldown && self.fired_for.len() <= MOST_VALUES {
                break;
            }
            self.cooling.remove(values);
            self.fired_for.pop_front();
        }
        let values = if cooldown.is_zero() { Values::default() } else { self.digest(values) };
        if !cooldown.is_zero() && self.cooling.contains(&values) {
            return Err(Shed::Cooldown);
        }
        if let Some(most) = max_per_minute {
            while self.fired.front().is_some_and(|fired| at.saturating_duration_since(*fired) >= MINUTE) {
                self.fired.pop_front();
            }
            if self.fired.len() >= most {
                return Err(Shed::MaxPerMinute);
            }
            self.fired.push_back(at);
        }
        if !cooldown.is_zero() {
            self.cooling.insert(values);
            self.fired_for.push_back((at, values));
        }
        Ok(())
    }

    fn digest<'c>(&self, values: impl Iterator<Item = Cell<'c>>) -> Values {
        let values: Vec<_> = values.map(owned).collect();
        self.keys.each_ref().map(|key| key.hash_one(&values))
    }
}

fn owned(cell: Cell<'_>) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Int(int) => Some(int.to_string()),
        Cell::Text(text) => Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cooldown_counts_for_each_value_and_a_minute_for_all() {
        let mut gate = Gate::default();
        let start = Instant::now();
        let mut pass = |value: &str, second: u64| {
            let at = start + Duration::from_secs(second);
            gate.pass(Duration::from_secs(10), Some(3), [Cell::Text(value)].into_iter(), at)
        };
        assert_eq!(pass("a", 0), Ok(()));
        assert_eq!(pass("a", 9), Err(Shed::Cooldown));
        assert_eq!(pass("b", 9), Ok(()));
        assert_eq!(pass("a", 10), Ok(()), "what was shed does not prolong it");
        assert_eq!(pass("c", 11), Err(Shed::MaxPerMinute));
        assert_eq!(pass("c", 60), Ok(()), "what was shed did not begin a cooldown");
        assert_eq!(pass("b", 61), Err(Shed::MaxPerMinute));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut gate = Gate::default();
        let at = Instant::now();
        for value in 0..20_000 {
            assert_eq!(gate.pass(MINUTE, None, [Cell::Int(value)].into_iter(), at), Ok(()));
        }
        assert!(gate.cooling.len() <= MOST_VALUES + 1 && gate.fired_for.len() == gate.cooling.len());
    }
}
