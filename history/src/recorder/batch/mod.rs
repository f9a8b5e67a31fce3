//! What waits to be written. A batch survives a store that fails: it is kept, bounded, and tried again. See [`write`] for the transaction.

mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    logs::{self, TableId},
    subject::Subject,
};
use crate::{
    container::ContainerKey,
    feed::{Feed, FeedStatus, Gap},
    sink::Cursor,
    store::RowBuf,
    table::Column,
    time::{Nanos, now},
};

/// Rows, and intervals, that are kept while the store fails; of more, or of more bytes, the oldest are evicted.
const MOST_ROWS: usize = 16_384;
const MOST_BYTES: usize = 16 << 20;
/// Earlier lives of containers that are kept.
const MOST_FORMER: usize = 512;

/// An encoded row.
#[derive(Debug)]
struct Row {
    table: TableId,
    time_ns: Nanos,
    bytes: RowBuf,
    /// One for each report that it stands for.
    feeds: Vec<Feed>,
}

/// What names an interval in the store: table, start, key and scope.
type Name = (TableId, Nanos, String, String);

/// The rest of an interval, encoded.
#[derive(Debug)]
struct Content {
    to_ns: Option<Nanos>,
    ended_reason: &'static str,
    evidence: String,
    row: RowBuf,
}

/// An interval that is to be stored, in place of the one with the same key, scope and start.
#[derive(Debug)]
pub(super) struct Written<'f, S> {
    pub(super) key: String,
    pub(super) scope: String,
    pub(super) from_ns: Nanos,
    pub(super) to_ns: Option<Nanos>,
    pub(super) ended_reason: &'static str,
    pub(super) evidence: String,
    pub(super) fact: &'f S,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: VecDeque<Row>,
    /// Of all rows.
    bytes: usize,
    /// `None`: is to be removed.
    intervals: BTreeMap<Name, Option<Content>>,
    /// What lanes keep for the next recorder; `None` forgets it.
    subjects: BTreeMap<String, Option<Vec<u8>>>,
    /// Reports that only added evidence: counted as stored with the subjects.
    known: Vec<(Feed, Nanos)>,
    dirty: BTreeSet<ContainerKey>,
    former: Vec<Subject>,
    forgotten: Vec<ContainerKey>,
    /// When containers ended of which nothing else is known any more.
    endings: BTreeMap<ContainerKey, Nanos>,
    cursors: BTreeMap<String, Cursor>,
    pub(super) gaps: Vec<Gap>,
    pub(super) sources: Option<Vec<FeedStatus>>,
    pub(super) notes: Vec<(String, String)>,
    /// Rows and intervals lost because the store failed for too long.
    pub(super) evicted: u64,
    /// Something was evicted that ends, or takes back, what the store has as going on.
    pub(super) is_short: bool,
    complete: Option<Complete>,
}

/// All that is known is in a batch: what else the store has as going on is over, and nobody knows since when.
#[derive(Debug)]
struct Complete {
    noticed_ns: Nanos,
    lanes: Vec<&'static str>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.intervals.is_empty()
            && self.subjects.is_empty()
            && self.known.is_empty()
            && self.dirty.is_empty()
            && self.former.is_empty()
            && self.forgotten.is_empty()
            && self.endings.is_empty()
            && self.cursors.is_empty()
            && self.gaps.is_empty()
            && self.notes.is_empty()
            && self.sources.is_none()
            && self.complete.is_none()
    }

    /// Adds an event's row; `feeds`: one for each report that it stands for.
    pub(super) fn add_event<E>(&mut self, table: TableId, columns: &[Column<E>], event: &E, time_ns: Nanos, feeds: Vec<Feed>) {
        let mut bytes = RowBuf::default();
        bytes.encode(columns, event);
        self.add(Row { table, time_ns, bytes, feeds });
    }

    /// Adds an interval that a lane keeps.
    pub(super) fn add_interval<S>(&mut self, table: TableId, columns: &[Column<S>], written: Written<'_, S>) {
        let Written { key, scope, from_ns, to_ns, ended_reason, evidence, fact } = written;
        let mut row = RowBuf::default();
        row.encode(columns, fact);
        self.intervals.insert((table, from_ns, key, scope), Some(Content { to_ns, ended_reason, evidence, row }));
    }

    /// Removes an interval of a lane: what is known now says otherwise.
    pub(super) fn remove_interval(&mut self, table: TableId, from_ns: Nanos, key: String, scope: String) {
        self.intervals.insert((table, from_ns, key, scope), None);
    }

    /// While the store takes nothing, memory is bounded all the same: evicts the oldest of what is too much. What the store has as going on
    /// on that account, [`Batch::complete`] ends later.
    pub(super) fn trim(&mut self) {
        let before = self.intervals.len() + self.former.len();
        while self.intervals.len() > MOST_ROWS {
            self.intervals.pop_first();
        }
        let excess = self.former.len().saturating_sub(MOST_FORMER);
        self.former.drain(..excess);
        let evicted = before - self.intervals.len() - self.former.len();
        let is_short = evicted > 0 || self.subjects.len() > MOST_ROWS;
        while self.subjects.len() > MOST_ROWS {
            self.subjects.pop_first();
        }
        if is_short {
            self.evicted += evicted as u64;
            self.is_short = true;
            self.complete = None;
        }
    }

    /// Says that all that is known is in the batch, of these lanes too: the next commit ends what else the store has as going on.
    pub(super) fn complete(&mut self, noticed_ns: Nanos, lanes: Vec<&'static str>) {
        self.complete = Some(Complete { noticed_ns, lanes });
    }

    #[cfg(test)]
    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Whether some row's bytes have these among them.
    #[cfg(test)]
    pub(super) fn has_row_with(&self, bytes: &[u8]) -> bool {
        self.rows.iter().any(|row| row.bytes.bytes().windows(bytes.len()).any(|window| window == bytes))
    }

    /// Keeps something of a lane for the next recorder, or forgets it.
    pub(super) fn keep(&mut self, name: String, value: Option<Vec<u8>>) {
        self.subjects.insert(name, value);
    }

    fn add(&mut self, row: Row) {
        self.bytes += row.bytes.len();
        self.rows.push_back(row);
        while (self.rows.len() > MOST_ROWS || self.bytes > MOST_BYTES)
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= oldest.bytes.len();
            self.evicted += 1;
            oldest.feeds.iter().for_each(Feed::count_unstored);
        }
    }

    pub(super) fn add_known(&mut self, known: impl IntoIterator<Item = (Feed, Nanos)>) {
        self.known.extend(known);
        // Their evidence is in the subjects, which are kept: they are as good as stored.
        if self.known.len() > MOST_ROWS {
            count_stored(&std::mem::take(&mut self.known));
        }
    }

    pub(super) fn add_dirty(&mut self, keys: impl IntoIterator<Item = ContainerKey>) {
        self.dirty.extend(keys);
    }

    /// Takes note that containers ended, whose evidence is forgotten. Returns of how many it was not written yet.
    pub(super) fn end(&mut self, sealed: Vec<(ContainerKey, Nanos)>) -> usize {
        let before = self.endings.len();
        self.endings.extend(sealed.into_iter().filter(|(key, _)| self.dirty.contains(key)));
        let unwritten = self.endings.len() - before;
        while self.endings.len() > MOST_ROWS {
            self.endings.pop_first();
        }
        unwritten
    }

    pub(super) fn add_former(&mut self, former: Vec<Subject>) {
        self.former.extend(former);
    }

    pub(super) fn forget(&mut self, keys: Vec<ContainerKey>) {
        for key in keys {
            self.dirty.remove(&key);
            self.forgotten.push(key);
        }
        // What is left in the store of the others, the next recorder reads and forgets.
        let excess = self.forgotten.len().saturating_sub(MOST_ROWS);
        self.forgotten.drain(..excess);
    }

    /// Removes the intervals of what turned out to be another container.
    pub(super) fn withdraw(&mut self, key: &ContainerKey, starts: &[Nanos]) {
        for from_ns in starts {
            self.remove_interval(logs::CONTAINER_HISTORY, *from_ns, key.container_id.to_string(), scope(key));
        }
    }

    pub(super) fn set_cursor(&mut self, stream: String, cursor: Cursor) {
        self.cursors.insert(stream, cursor);
    }

    /// The cursors that the next commit stores.
    pub(super) const fn cursors(&self) -> &BTreeMap<String, Cursor> {
        &self.cursors
    }
}

/// What tells containers of one id apart.
fn scope(key: &ContainerKey) -> String {
    format!("{} {}", key.endpoint, key.runtime_namespace)
}

fn count_stored(stored: &[(Feed, Nanos)]) {
    let now_ns = now();
    for (feed, time_ns) in stored {
        feed.count_stored(*time_ns, now_ns.saturating_sub(*time_ns).max(0) / 1_000_000);
    }
}
