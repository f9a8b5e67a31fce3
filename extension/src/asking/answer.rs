//! One question to osquery, bounded in time, rows and bytes, and its answer as rows of `triggered_results`.

use std::{
    io,
    time::{Duration, Instant},
};

use mayfly_history::{
    Nanos, chain, now,
    triggered::{Occasion, TriggeredResult},
};

use crate::{
    line::Line,
    manager::{ManagerError, Row},
};

/// Most rows of an answer.
pub(super) const MOST_ROWS: usize = 1000;
/// Most bytes of its rows, as JSON.
const MOST_BYTES: usize = 1 << 20;
/// The same with what Thrift puts around them, on the wire.
const MOST_ON_THE_WIRE: usize = 4 * MOST_BYTES;
/// The longest row: a cell of ours has no room for more.
const LONGEST_ROW: usize = 60 << 10;

/// The event that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    pub(super) table: &'static str,
    pub(super) eid: String,
    pub(super) time_ns: Nanos,
    /// How many events the answer is for; this is the newest of them.
    pub(super) count: i64,
}

/// What osquery is asked, and why.
#[derive(Debug)]
pub(super) struct Question<'q> {
    pub(super) occasion: Occasion,
    pub(super) name: &'q str,
    pub(super) sql: &'q str,
    pub(super) event: Option<&'q Event>,
    pub(super) patience: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Answer {
    /// To be stored: the rows, or one that says why there are none.
    pub(super) results: Vec<TriggeredResult>,
    /// Why there are no rows, or not all.
    pub(super) error: Option<String>,
    /// osquery answered: an error says then what of the answer is left out, and asking again would not help.
    pub(super) is_answered: bool,
    /// Nobody listened: osquery is not there, or no longer.
    pub(super) is_gone: bool,
}

impl Question<'_> {
    pub(super) fn ask(&self, line: &Line) -> Answer {
        let (began, began_ns) = (Instant::now(), now());
        // Bounded where it is made: osquery would hold the rows of an endless answer in memory, and so would we.
        let bounded = format!("SELECT * FROM (\n{}\n) LIMIT {}", self.sql, MOST_ROWS + 1);
        let answered = line.manager(self.patience).answering_at_most(MOST_ON_THE_WIRE).query(&bounded);
        let is_gone = matches!(&answered, Err(ManagerError::Unreachable { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused));
        let is_answered = answered.as_ref().map_or_else(ManagerError::is_too_long, |_| true);
        let explain = |error: ManagerError| match began.elapsed() >= self.patience {
            _ if error.is_too_long() => format!("its rows are more than {MOST_BYTES} bytes: narrow the query, or select fewer columns"),
            true => format!("osquery did not answer within {} s", self.patience.as_secs_f32()),
            false => chain(&error),
        };
        let (rows, error) = match answered.map_err(explain).and_then(within_bounds) {
            Ok((rows, error)) => (rows, error),
            Err(error) => (Vec::new(), Some(error)),
        };
        let empty = TriggeredResult {
            time_ns: now(),
            occasion: self.occasion,
            name: self.name.to_owned(),
            query: self.sql.to_owned(),
            event_table: self.event.map_or("", |event| event.table),
            event_eid: self.event.map(|event| event.eid.clone()).unwrap_or_default(),
            events: self.event.map(|event| event.count),
            delay_ms: self.event.map(|event| (began_ns - event.time_ns) / 1_000_000),
            duration_ms: i64::try_from(began.elapsed().as_millis()).ok(),
            row: Row::new(),
            error: String::new(),
        };
        let mut results: Vec<_> = rows.into_iter().map(|row| TriggeredResult { row, ..empty.clone() }).collect();
        results.extend(error.iter().map(|error| TriggeredResult { error: error.clone(), ..empty.clone() }));
        Answer { results, error, is_answered, is_gone }
    }
}

/// The rows, and what is to be said of those that are left out; or why there are none.
fn within_bounds(mut rows: Vec<Row>) -> Result<(Vec<Row>, Option<String>), String> {
    if rows.len() > MOST_ROWS {
        return Err(format!("there are more than {MOST_ROWS} rows: narrow the query, or limit it"));
    }
    let length = |row: &Row| serde_json::to_string(row).map_or(0, |json| json.len());
    let (all, before) = (rows.iter().map(length).sum::<usize>(), rows.len());
    if all > MOST_BYTES {
        return Err(format!("its rows are {all} bytes, and {MOST_BYTES} is the most: narrow the query, or select fewer columns"));
    }
    rows.retain(|row| length(row) <= LONGEST_ROW);
    let left_out = before - rows.len();
    Ok((rows, (left_out > 0).then(|| format!("{left_out} rows are left out: longer than {LONGEST_ROW} bytes"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, length: usize) -> Vec<Row> {
        vec![Row::from([("c".to_owned(), "x".repeat(length))]); count]
    }

    #[test]
    fn too_much_is_one_error_that_says_so() {
        assert_eq!(within_bounds(rows(MOST_ROWS, 1)), Ok((rows(MOST_ROWS, 1), None)));
        assert!(within_bounds(rows(MOST_ROWS + 1, 1)).unwrap_err().contains("more than 1000 rows"));
        assert!(within_bounds(rows(500, 3000)).unwrap_err().contains("bytes"));
        let (kept, error) = within_bounds([rows(1, LONGEST_ROW), rows(2, 1)].concat()).unwrap();
        assert_eq!(kept.len(), 2);
        assert!(error.unwrap().contains("1 rows are left out"));
    }
}
