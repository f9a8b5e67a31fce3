//! Events that cannot be read any more are a gap. Only the recorder writes the store: whoever reads and finds some leaves word of them in a
//! small file beside it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rusqlite::{Connection, OptionalExtension, Result};

use super::status;
use crate::{
    feed::{Gap, cause},
    time::Nanos,
};

const FILE: &str = "history.damaged";
/// Most bytes of words that nobody has taken.
const MOST: u64 = 64 << 10;

/// Where damaged events are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// `blocks` or `tail`.
    pub(super) part: &'static str,
    pub(super) table: String,
    pub(super) last_sequence: i64,
}

/// Leaves word for the recorder of the store in `dir`.
pub(super) fn leave_word(dir: &Path, place: &Place) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(FILE))?;
    if file.metadata()?.len() < MOST {
        // In one piece: others may write, too.
        file.write_all(format!("{} {} {}\n", place.part, place.table, place.last_sequence).as_bytes())?;
    }
    Ok(())
}

/// Takes the words that were left.
pub(super) fn take_words(dir: &Path) -> io::Result<Vec<Place>> {
    // What is written after the name is gone comes next time.
    let taken = dir.join(format!("{FILE}.taken"));
    match fs::rename(dir.join(FILE), &taken) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        renamed => renamed?,
    }
    let text = fs::read_to_string(&taken)?;
    fs::remove_file(&taken)?;
    let mut places: Vec<_> = text.lines().filter_map(parse).collect();
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn parse(line: &str) -> Option<Place> {
    let mut words = line.split(' ');
    let word = words.next()?;
    let part = ["blocks", "tail"].into_iter().find(|part| *part == word)?;
    Some(Place { part, table: words.next()?.to_owned(), last_sequence: words.next()?.parse().ok()? })
}

/// Notes what a place holds as lost, if it is still there. Its table is one of the store's own.
pub(super) fn note(conn: &Connection, place: &Place, age_ns: i64) -> Result<()> {
    let Place { part, table, last_sequence } = place;
    let sql = format!(r#"SELECT min_time_ns, max_time_ns, rows FROM "{table}_{part}" WHERE last_sequence = ?"#);
    let held: Option<(Nanos, Nanos, i64)> =
        conn.prepare(&sql)?.query_row([last_sequence], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
    match held {
        Some((from_ns, last_ns, rows)) => put_gap(conn, table, from_ns, last_ns, rows, age_ns),
        None => Ok(()),
    }
}

/// Notes that so many events of a table are lost.
pub(super) fn put_gap(conn: &Connection, table: &str, from_ns: Nanos, last_ns: Nanos, lost: i64, age_ns: i64) -> Result<()> {
    let gap = Gap {
        source: "store".into(),
        endpoint: table.into(),
        cause: cause::DAMAGED_BLOCK.into(),
        from_ns,
        to_ns: Some(last_ns.saturating_add(1)),
        recovered: 0,
        detail: format!("{lost} events cannot be read: what was stored of them is damaged"),
    };
    status::put_gap(conn, &gap, age_ns)
}
