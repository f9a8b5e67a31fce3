//! Generations: spans of the one sequence of event numbers. A new file, another machine (a clone) or an older file put back
//! begins a new one, so that no event id is ever given twice.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rusqlite::Connection;

use super::error::StoreError;
use crate::{
    eid::Eid,
    time::{Nanos, now},
};

/// The newest generation, beside the database: it survives when the database does not.
const FILE: &str = "history.generation";

/// The machine that the store is on, by the names of its installation and of its firmware, which no image takes along; each is
/// empty where there is none.
pub(super) fn machine() -> String {
    let name = |path| fs::read_to_string(path).map(|id| id.trim().to_ascii_lowercase()).unwrap_or_default();
    format!("{} {}", name("/etc/machine-id"), name("/sys/class/dmi/id/product_uuid")).trim_end().to_owned()
}

/// Whether these are two machines: by a name that both have.
fn differ(one: &str, other: &str) -> bool {
    one.split(' ').zip(other.split(' ')).any(|(one, other)| !one.is_empty() && !other.is_empty() && one != other)
}

/// One machine by all of its names that were ever told.
fn united(before: &str, now: &str) -> String {
    let (mut before, mut now) = (before.split(' '), now.split(' '));
    let name = || match (before.next(), now.next()) {
        (None, None) => None,
        (before, now) => Some(now.filter(|name| !name.is_empty()).or(before).unwrap_or_default()),
    };
    std::iter::from_fn(name).collect::<Vec<_>>().join(" ")
}

/// The generation to write in, and whether it began just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    pub(super) generation: u32,
    pub(super) is_new: bool,
}

/// The generation to write in now; begins a new one where the last is not this machine's newest. In the caller's transaction.
pub(super) fn resume(conn: &Connection, dir: &Path, machine: &str, last_sequence: u64) -> Result<Resumed, StoreError> {
    let generations = Generations::load(conn).map_err(StoreError::database("read the generations"))?;
    let kept = kept(dir)?;
    if let Some(Generation { generation, machine: before, .. }) = generations.0.last()
        && *generation >= kept
        && !differ(before, machine)
    {
        if *generation > kept {
            keep(dir, *generation)?;
        }
        let known = united(before, machine);
        if known != *before {
            conn.execute("UPDATE generations SET machine = ? WHERE generation = ?", (known, generation))
                .map_err(StoreError::database("name the machine of a generation"))?;
        }
        return Ok(Resumed { generation: *generation, is_new: false });
    }
    let newest = generations.newest().max(kept);
    Ok(Resumed { generation: begin_after(newest, conn, dir, machine, last_sequence)?, is_new: true })
}

/// Begins a generation: the machine turned out to be another. In the caller's transaction.
pub(super) fn begin(conn: &Connection, dir: &Path, machine: &str, last_sequence: u64) -> Result<u32, StoreError> {
    let generations = Generations::load(conn).map_err(StoreError::database("read the generations"))?;
    begin_after(generations.newest().max(kept(dir)?), conn, dir, machine, last_sequence)
}

fn begin_after(newest: u32, conn: &Connection, dir: &Path, machine: &str, last_sequence: u64) -> Result<u32, StoreError> {
    let generation = seconds(now()).max(newest.saturating_add(1));
    keep(dir, generation)?;
    conn.execute("INSERT INTO generations VALUES (?, ?, ?)", (generation, sql(last_sequence + 1), machine))
        .map_err(StoreError::database("begin a generation"))?;
    Ok(generation)
}

fn seconds(time: Nanos) -> u32 {
    u32::try_from(time / 1_000_000_000).unwrap_or(0)
}

fn kept(dir: &Path) -> Result<u32, StoreError> {
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        // Damage here only loses the reminder.
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::file("read", path)(error)),
    }
}

fn keep(dir: &Path, generation: u32) -> Result<(), StoreError> {
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(file, "{generation}")?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(StoreError::file("write", &path))
}

/// A sequence number as SQLite keeps it.
pub(super) const fn sql(sequence: u64) -> i64 {
    if sequence > i64::MAX as u64 { i64::MAX } else { sequence.cast_signed() }
}

#[derive(Clone, Debug)]
struct Generation {
    generation: u32,
    first_sequence: u64,
    machine: String,
}

/// All generations of a file, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Generations(Vec<Generation>);

impl Generations {
    pub(super) fn load(conn: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = conn.prepare_cached("SELECT generation, first_sequence, machine FROM generations ORDER BY generation")?;
        let rows = statement.query_map([], |r| {
            Ok(Generation { generation: r.get(0)?, first_sequence: r.get::<_, i64>(1)?.cast_unsigned(), machine: r.get(2)? })
        })?;
        rows.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn newest(&self) -> u32 {
        self.0.last().map_or(0, |g| g.generation)
    }

    /// The name of the event with that sequence number.
    pub(super) fn eid(&self, sequence: i64) -> Eid {
        let sequence = sequence.cast_unsigned();
        let older = self.0.partition_point(|g| g.first_sequence <= sequence);
        Eid { generation: older.checked_sub(1).map_or(0, |i| self.0[i].generation), sequence }
    }

    /// The greatest sequence number of this file that is not after `eid`; 0 if all are after it.
    pub(super) fn sequence(&self, eid: Eid) -> i64 {
        let after = self.0.partition_point(|g| g.generation <= eid.generation);
        let end = self.0.get(after).map_or(i64::MAX, |next| sql(next.first_sequence) - 1);
        match after.checked_sub(1).map(|i| &self.0[i]) {
            None => 0,
            Some(g) if g.generation == eid.generation => sql(eid.sequence).clamp(sql(g.first_sequence) - 1, end),
            Some(_) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generations(of: &[(u32, u64)]) -> Generations {
        Generations(
            of.iter().map(|&(generation, first_sequence)| Generation { generation, first_sequence, machine: String::new() }).collect(),
        )
    }

    #[test]
    fn a_sequence_number_and_an_eid_name_the_same_event() {
        let generations = generations(&[(100, 1), (200, 11)]);
        assert_eq!(generations.eid(10), Eid { generation: 100, sequence: 10 });
        assert_eq!(generations.eid(11), Eid { generation: 200, sequence: 11 });
        for sequence in [1, 10, 11, 99] {
            assert_eq!(generations.sequence(generations.eid(sequence)), sequence);
        }
    }

    #[test]
    fn a_machine_is_another_by_a_name_that_both_have() {
        for (before, now, is_another) in [
            ("m u", "m u", false),
            ("m u", "m u2", true),
            ("m u", "m2 u", true),
            ("m u", "m", false),
            ("m", "m u", false),
            ("", "m u", false),
            (" u", "m u", false),
            ("m u", " u2", true),
        ] {
            assert_eq!(differ(before, now), is_another, "{before:?} then {now:?}");
        }
        assert_eq!(
            [("m", "m u"), ("m u", "m"), ("", ""), (" u", "m"), ("m u", " u")].map(|(a, b)| united(a, b)),
            ["m u", "m u", "", "m u", "m u"]
        );
    }

    #[test]
    fn an_eid_of_another_file_falls_where_its_generation_does() {
        let generations = generations(&[(100, 1), (200, 11)]);
        assert_eq!(generations.sequence(Eid { generation: 50, sequence: 7 }), 0, "before this file: all events are after it");
        assert_eq!(generations.sequence(Eid { generation: 150, sequence: 7 }), 10);
        assert_eq!(generations.sequence(Eid { generation: 100, sequence: 500 }), 10, "past the end of its generation");
        assert_eq!(generations.sequence(Eid { generation: 300, sequence: 1 }), i64::MAX, "after all that is here");
    }
}
