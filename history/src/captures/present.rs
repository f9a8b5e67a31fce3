//! Which rows of a captured table hold: digests of them, and how each is found in the store.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
};

use foldhash::quality::FixedState;

use super::Value;
use crate::{store::IntervalRow, time::Nanos};

/// A row that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    digest: u128,
    pub(super) from_ns: Nanos,
    pub(super) key: String,
    pub(super) scope: String,
}

/// A row that no longer holds.
#[derive(Debug)]
pub(super) struct Ends {
    identity: u128,
    pub(super) from_ns: Nanos,
    pub(super) key: String,
    pub(super) scope: String,
    /// `changed` if another row of the same identity begins, else `removed`.
    pub(super) reason: &'static str,
}

/// A row that is new.
#[derive(Debug)]
pub(super) struct Begins {
    identity: u128,
    /// Its place in the capture.
    pub(super) row: usize,
    pub(super) held: Held,
}

#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) ends: Vec<Ends>,
    pub(super) begins: Vec<Begins>,
}

/// The rows that hold, by identity. A table may have the same row twice, and rows of one identity that differ.
#[derive(Debug)]
pub(super) struct Present {
    identity: Vec<usize>,
    passing: Vec<usize>,
    rows: HashMap<u128, Vec<Held>>,
}

impl Present {
    /// `identity`: positions of the columns that tell rows apart; none: all columns do. `passing`: of those whose changes do not count.
    pub(super) fn new(identity: &[usize], passing: &[usize]) -> Self {
        Self { identity: identity.to_vec(), passing: passing.to_vec(), rows: HashMap::new() }
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Takes up a row that held when the store was closed.
    pub(super) fn restore(&mut self, row: &IntervalRow<'_>) {
        let values: Vec<Value> = row.cells.iter().map(|cell| Value::from(*cell)).collect();
        let held =
            Held { digest: self.digest_of(&values), from_ns: row.valid_from_ns, key: row.key.to_owned(), scope: row.scope.to_owned() };
        self.rows.entry(self.identity_of(&values)).or_default().push(held);
    }

    fn identity_of(&self, values: &[Value]) -> u128 {
        if self.identity.is_empty() {
            return self.digest_of(values);
        }
        digest(&self.identity.iter().filter_map(|column| values.get(*column)).collect::<Vec<_>>())
    }

    /// What tells whether a row is still the same.
    fn digest_of(&self, values: &[Value]) -> u128 {
        digest(&values.iter().enumerate().filter(|(at, _)| !self.passing.contains(at)).map(|(_, value)| value).collect::<Vec<_>>())
    }

    /// What has to change so that exactly `rows` hold from `at_ns` on.
    pub(super) fn compare(&self, rows: &[Vec<Value>], at_ns: Nanos) -> Change {
        let mut captured: HashMap<u128, Vec<(usize, u128)>> = HashMap::with_capacity(rows.len());
        for (row, values) in rows.iter().enumerate() {
            captured.entry(self.identity_of(values)).or_default().push((row, self.digest_of(values)));
        }
        let mut change = Change::default();
        for (identity, held) in self.rows.iter().filter(|(identity, _)| !captured.contains_key(*identity)) {
            change.ends.extend(held.iter().map(|held| ends(*identity, held, "removed")));
        }
        for (identity, mut news) in captured {
            let held = self.rows.get(&identity).map_or(&[][..], Vec::as_slice);
            // Many rows may have one identity: how many of each are there still is counted.
            let mut there: HashMap<u128, usize> = HashMap::with_capacity(news.len());
            news.iter().for_each(|(_, digest)| *there.entry(*digest).or_default() += 1);
            let (same, gone): (Vec<&Held>, Vec<_>) = held.iter().partition(|held| take_one(&mut there, held.digest));
            let mut kept: HashMap<u128, usize> = HashMap::with_capacity(same.len());
            same.iter().for_each(|held| *kept.entry(held.digest).or_default() += 1);
            news.retain(|(_, digest)| !take_one(&mut kept, *digest));
            let changed = gone.len().min(news.len());
            let reason = |at: usize| if at < changed { "changed" } else { "removed" };
            change.ends.extend(gone.iter().enumerate().map(|(at, held)| ends(identity, held, reason(at))));
            // Of one key and start, the scope is what tells intervals apart.
            let taken: HashSet<&str> = held.iter().map(|held| held.scope.as_str()).collect();
            let scopes = (0..).map(|nth: usize| format!("{identity:032x}.{nth}")).filter(|scope| !taken.contains(scope.as_str()));
            // A clock that was set back must not begin a row before the one that it replaces.
            let from_ns = gone.iter().map(|held| held.from_ns).fold(at_ns, Nanos::max);
            for ((row, digest), scope) in news.into_iter().zip(scopes) {
                change.begins.push(Begins { identity, row, held: Held { digest, from_ns, key: key(&rows[row]), scope } });
            }
        }
        change
    }

    /// Makes a change that the store has taken.
    pub(super) fn apply(&mut self, change: Change) {
        let mut ended: HashMap<u128, HashSet<(String, Nanos)>> = HashMap::new();
        for Ends { identity, scope, from_ns, .. } in change.ends {
            ended.entry(identity).or_default().insert((scope, from_ns));
        }
        for (identity, ended) in ended {
            if let Some(held) = self.rows.get_mut(&identity) {
                held.retain(|held| !ended.contains(&(held.scope.clone(), held.from_ns)));
                if held.is_empty() {
                    self.rows.remove(&identity);
                }
            }
        }
        for begun in change.begins {
            self.rows.entry(begun.identity).or_default().push(begun.held);
        }
    }
}

/// Takes one of those that are counted there, if there is one.
fn take_one(counts: &mut HashMap<u128, usize>, digest: u128) -> bool {
    let count = counts.get_mut(&digest).filter(|count| **count > 0);
    count.map(|count| *count -= 1).is_some()
}

fn ends(identity: u128, held: &Held, reason: &'static str) -> Ends {
    Ends { identity, from_ns: held.from_ns, key: held.key.clone(), scope: held.scope.clone(), reason }
}

/// What intervals are found by: the first column.
fn key(values: &[Value]) -> String {
    match values.first() {
        Some(Value::Int(int)) => int.to_string(),
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
    }
}

/// Two hashes that share nothing: rows are told apart by it alone.
fn digest<T: std::hash::Hash + ?Sized>(values: &T) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(values));
    half(0x6d61_7966) << 64 | half(0x6c79_2121)
}
