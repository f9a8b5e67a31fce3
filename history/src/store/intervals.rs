//! How intervals are found by time.
//!
//! Keys never come back (a container id), so the state as of T must not visit the keys that are long dead. Each interval has
//! a class: the power of two (in nanoseconds) that its length does not exceed, or [`OPEN`] while it holds. An interval
//! of class `c` that holds at T began after `T - 2^c`: an index over (class, start) gives one short window per class, and
//! at least half of the time that a window spans is spent in intervals that hold.

use std::{cmp::Reverse, collections::BinaryHeap, ops::ControlFlow, sync::Arc};

use rusqlite::{Row, params};

use super::{
    error::StoreError,
    layout::Layout,
    projection::{Projection, parse_number},
    reader::OpenFile,
    scan::{IntervalRow, IntervalScan, Limit, Scanned},
};
use crate::{cell::Cell, table::TableSchema, time::Nanos};

/// Class of intervals that still hold.
pub(super) const OPEN: i64 = 64;

/// Class of an interval.
pub(super) fn class(from_ns: Nanos, to_ns: Option<Nanos>) -> i64 {
    let Some(to_ns) = to_ns else { return OPEN };
    let length = to_ns.saturating_sub(from_ns).max(0).cast_unsigned();
    i64::from(64 - length.saturating_sub(1).leading_zeros()).min(63)
}

/// The earliest start of an interval of `class` that ends after `at_ns`.
pub(super) const fn earliest(class: i64, at_ns: Nanos) -> Nanos {
    if class >= 63 { Nanos::MIN } else { at_ns.saturating_sub(1 << class) }
}

type Visit<'v> = dyn FnMut(&IntervalRow<'_>) -> ControlFlow<()> + 'v;

/// What names an interval, ordered by its start.
type Name = (Nanos, String, String);

/// Columns of a row, as [`Search::visit`] reads them.
const COLUMNS: &str = "key, valid_from_ns, valid_to_ns, ended_reason, evidence, layout, row, scope";

/// A scan, worked out: all intervals that begin within `[from_min, from_max]` and end after `to_after`.
struct Search<'s> {
    file: &'s OpenFile,
    table: &'s TableSchema,
    scan: &'s IntervalScan,
    from_min: Nanos,
    from_max: Nanos,
    to_after: Nanos,
    known: Option<(i64, Arc<Layout>, Projection)>,
    scanned: Scanned,
}

pub(super) fn scan(file: &OpenFile, table: &TableSchema, scan: &IntervalScan, visit: &mut Visit<'_>) -> Result<Scanned, StoreError> {
    let mut search = Search {
        file,
        table,
        scan,
        from_min: scan.from_min.unwrap_or(Nanos::MIN),
        from_max: scan.as_of.into_iter().chain(scan.from_max).min().unwrap_or(Nanos::MAX),
        to_after: scan.as_of.into_iter().chain(scan.to_after).max().unwrap_or(Nanos::MIN),
        known: None,
        scanned: Scanned::default(),
    };
    let narrow = search.to_after != Nanos::MIN || search.from_min != Nanos::MIN;
    let mut keys = scan.keys.clone();
    keys.sort_unstable();
    keys.dedup();
    match scan.limit {
        Limit::Newest(most) => search.named(Names::newest(most), &keys, visit)?,
        _ if !keys.is_empty() => {
            for key in &keys {
                if search.key(key, visit)?.is_break() {
                    break;
                }
            }
        }
        _ if narrow => search.named(Names::all(), &[], visit)?,
        _ => search.everything(visit)?,
    }
    Ok(search.scanned)
}

impl Search<'_> {
    fn failed() -> impl FnOnce(rusqlite::Error) -> StoreError {
        StoreError::database("read intervals")
    }

    /// The intervals of one key.
    fn key(&mut self, key: &str, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, StoreError> {
        let sql = format!(
            r#"SELECT {COLUMNS} FROM "{}_intervals" WHERE key = ? AND valid_from_ns BETWEEN ? AND ?
            AND (valid_to_ns IS NULL OR valid_to_ns > ?) ORDER BY valid_from_ns, scope"#,
            self.table.name
        );
        let mut statement = self.file.conn.prepare_cached(&sql).map_err(Self::failed())?;
        let mut rows = statement.query(params![key, self.from_min, self.from_max, self.to_after]).map_err(Self::failed())?;
        while let Some(row) = rows.next().map_err(Self::failed())? {
            if self.visit(row, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// All, in the order in which they lie.
    fn everything(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let sql =
            format!(r#"SELECT {COLUMNS} FROM "{}_intervals" WHERE valid_from_ns <= ? ORDER BY key, valid_from_ns, scope"#, self.table.name);
        let mut statement = self.file.conn.prepare_cached(&sql).map_err(Self::failed())?;
        let mut rows = statement.query([self.from_max]).map_err(Self::failed())?;
        while let Some(row) = rows.next().map_err(Self::failed())? {
            if self.visit(row, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Names are found first, through the index over time or by key; then the rows, in order.
    fn named(&mut self, mut names: Names, keys: &[String], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.find(&mut names, keys).map_err(Self::failed())?;
        self.scanned.cut = names.cut;
        let sql = format!(r#"SELECT {COLUMNS} FROM "{}_intervals" WHERE key = ? AND valid_from_ns = ? AND scope = ?"#, self.table.name);
        let mut statement = self.file.conn.prepare_cached(&sql).map_err(Self::failed())?;
        for (from, key, scope) in names.in_order() {
            let mut rows = statement.query(params![key, from, scope]).map_err(Self::failed())?;
            if let Some(row) = rows.next().map_err(Self::failed())?
                && self.visit(row, visit)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn find(&self, names: &mut Names, keys: &[String]) -> Result<(), rusqlite::Error> {
        let condition = "valid_from_ns BETWEEN ? AND ? AND (valid_to_ns IS NULL OR valid_to_ns > ?)";
        let table = self.table.name;
        let name = |r: &Row<'_>| Ok::<Name, rusqlite::Error>((r.get(0)?, r.get(1)?, r.get(2)?));
        if keys.is_empty() {
            let sql = format!(r#"SELECT valid_from_ns, key, scope FROM "{table}_intervals" WHERE class = ? AND {condition}"#);
            let mut statement = self.file.conn.prepare_cached(&sql)?;
            for class in 0..=OPEN {
                let from = self.from_min.max(earliest(class, self.to_after));
                let mut rows = statement.query(params![class, from, self.from_max, self.to_after])?;
                while let Some(row) = rows.next()? {
                    names.push(name(row)?);
                }
            }
        }
        let sql = format!(r#"SELECT valid_from_ns, key, scope FROM "{table}_intervals" WHERE key = ? AND {condition}"#);
        let mut statement = self.file.conn.prepare_cached(&sql)?;
        for key in keys {
            let mut rows = statement.query(params![key, self.from_min, self.from_max, self.to_after])?;
            while let Some(row) = rows.next()? {
                names.push(name(row)?);
            }
        }
        Ok(())
    }

    fn visit(&mut self, row: &Row<'_>, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, StoreError> {
        if self.scan.limit == Limit::Oldest(self.scanned.rows) {
            self.scanned.cut = true;
            return Ok(ControlFlow::Break(()));
        }
        let id_of = |row: &Row<'_>| row.get::<_, i64>(5).map_err(Self::failed());
        let (layout, projection) = match &self.known {
            Some((id, layout, projection)) if *id == id_of(row)? => (layout, projection),
            _ => {
                let id = id_of(row)?;
                let found = self.file.layouts.get(&self.file.conn, id)?;
                let projection = Projection::new(&found, self.table, &self.scan.wanted, &[]);
                let known = self.known.insert((id, found, projection));
                (&known.1, &known.2)
            }
        };
        // As it was when the row was written: a table may have got another first column since.
        let number = layout.key_is_number();
        let mut plain = Vec::new();
        let mut read = || {
            let key = row.get_ref(0)?.as_str()?;
            let first = if number { parse_number(key).map_or(Cell::Null, Cell::Int) } else { Cell::Text(key) };
            if let Err(why) = layout.inflate(row.get_ref(6)?.as_blob()?, &mut plain) {
                // The interval still tells its key and when it held.
                tracing::error!(table = self.table.name, why, "an interval is damaged");
                plain.clear();
            }
            let cells = projection.pick(&projection.decode(Some(first), &plain));
            Ok(visit(&IntervalRow {
                key,
                scope: row.get_ref(7)?.as_str()?,
                valid_from_ns: row.get(1)?,
                valid_to_ns: row.get(2)?,
                ended_reason: row.get_ref(3)?.as_str()?,
                evidence: row.get_ref(4)?.as_str()?,
                cells: &cells,
            }))
        };
        let flow = read().map_err(Self::failed())?;
        self.scanned.rows += 1;
        Ok(flow)
    }
}

/// Names of intervals, at most so many: those that began last.
struct Names {
    most: usize,
    found: BinaryHeap<Reverse<Name>>,
    cut: bool,
}

impl Names {
    fn all() -> Self {
        Self::newest(usize::MAX)
    }

    fn newest(most: usize) -> Self {
        Self { most, found: BinaryHeap::new(), cut: false }
    }

    fn push(&mut self, name: Name) {
        self.found.push(Reverse(name));
        if self.found.len() > self.most {
            self.found.pop();
            self.cut = true;
        }
    }

    /// By key, start and scope.
    fn in_order(self) -> Vec<Name> {
        let mut names: Vec<Name> = self.found.into_iter().map(|Reverse(name)| name).collect();
        names.sort_unstable_by(|a, b| (&a.1, a.0, &a.2).cmp(&(&b.1, b.0, &b.2)));
        names
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_of_its_class_has_every_interval_that_holds(from in 0..i64::MAX / 2, length in 0..i64::MAX / 2, at: prop::sample::Index) {
            let to = from + length;
            if from < to {
                let at = from + i64::try_from(at.index(usize::try_from(length).unwrap())).unwrap();
                prop_assert!(from >= earliest(class(from, Some(to)), at));
            }
        }
    }

    #[test]
    fn classes_are_powers_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|n| class(100, Some(100 + n))), [0, 0, 1, 2, 2, 3]);
        assert_eq!(class(0, Some(i64::MAX)), 63);
        assert_eq!(class(i64::MIN, Some(i64::MAX)), 63);
        assert_eq!(class(0, None), OPEN);
        assert_eq!(class(9, Some(3)), 0, "an end before the start is no length");
    }
}
