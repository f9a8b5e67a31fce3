//! The tables of the file, in SQL.

use rusqlite::{Connection, Params};

use crate::table::{Role, TableKind, TableSchema};

use super::layout::{self, Registered};

/// `PRAGMA application_id` of our files: "Mayf".
pub(super) const APPLICATION: i64 = 0x4d61_7966;
/// `PRAGMA user_version`: the newest format that this code knows.
pub(super) const FORMAT: i64 = 1;

/// What every file has. `state` has one row: the sequence number last given and the clocks at that time.
const COMMON: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE generations (generation INTEGER PRIMARY KEY, first_sequence INTEGER NOT NULL, machine TEXT NOT NULL);
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), last_sequence INTEGER NOT NULL, age_ns INTEGER NOT NULL,
    boot_id TEXT NOT NULL, boot_ns INTEGER NOT NULL, wall_ns INTEGER NOT NULL);
CREATE TABLE clocks (id INTEGER PRIMARY KEY, first_sequence INTEGER NOT NULL, boot_id TEXT NOT NULL, boot_ns INTEGER NOT NULL,
    offset_ns INTEGER NOT NULL);
CREATE TABLE logs (name TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layouts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, columns TEXT NOT NULL, dictionary BLOB);
CREATE TABLE cursors (stream TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subjects (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE gaps (source TEXT, endpoint TEXT, cause TEXT, from_ns INTEGER, to_ns INTEGER, recovered INTEGER NOT NULL, detail TEXT NOT NULL,
    age_ns INTEGER NOT NULL, PRIMARY KEY (source, endpoint, cause, from_ns)) WITHOUT ROWID;
CREATE TABLE sources (source TEXT, endpoint TEXT, state TEXT, since_ns INTEGER, events INTEGER, received INTEGER, evicted INTEGER,
    rejected INTEGER, lost_in_kernel INTEGER, lag_ms INTEGER, restarts INTEGER, last_event_ns INTEGER, last_error TEXT, hint TEXT,
    PRIMARY KEY (source, endpoint)) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('store_uuid', (SELECT lower(
    substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-' || substr(h, 21))
    FROM (SELECT hex(randomblob(16)) AS h)));
";

/// Makes the tables of a new file, in the caller's transaction.
pub(super) fn create(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.execute_batch(COMMON)?;
    conn.pragma_update(None, "application_id", APPLICATION)?;
    conn.pragma_update(None, "user_version", FORMAT)
}

/// An event or history table as the file has it: its statements, spelt once.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) name: String,
    pub(super) layout: i64,
    /// Number of stored columns.
    pub(super) width: usize,
    /// What rows of this layout are compressed by.
    pub(super) dictionary: Option<Vec<u8>>,
    /// Positions of the join keys among the stored columns.
    pub(super) keys: Vec<usize>,
    pub(super) insert: String,
    pub(super) remove: String,
    pub(super) end: String,
}

impl Log {
    /// Makes what the file lacks of `table`, in the caller's transaction.
    pub(super) fn create(conn: &Connection, table: &TableSchema) -> Result<Self, rusqlite::Error> {
        let name = table.name;
        let (kind, tables) = match table.kind {
            TableKind::History => ("history", history_tables(name)),
            _ => ("events", event_tables(name)),
        };
        conn.execute_batch(&tables)?;
        conn.execute("INSERT INTO logs VALUES (?, ?) ON CONFLICT DO NOTHING", [name, kind])?;
        let Registered { id, width, dictionary } = layout::register(conn, table)?;
        Ok(Self {
            name: name.to_owned(),
            layout: id,
            width,
            dictionary,
            keys: table.stored().enumerate().filter(|(_, c)| c.role == Role::Index).map(|(i, _)| i).collect(),
            insert: match table.kind {
                TableKind::History => format!(r#"INSERT OR REPLACE INTO "{name}_intervals" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#),
                _ => format!(r#"INSERT INTO "{name}_tail" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"#),
            },
            remove: format!(r#"DELETE FROM "{name}_intervals" WHERE key = ? AND valid_from_ns = ? AND scope = ?"#),
            end: format!(
                r#"UPDATE "{name}_intervals" SET valid_to_ns = ?, class = ?, age_ns = ?, ended_reason = ?
                WHERE key = ? AND valid_from_ns = ? AND scope = ?"#
            ),
        })
    }

    /// Adds a row, in place of the one with the same key if the table has one.
    pub(super) fn insert_into(&self, conn: &Connection, row: impl Params) -> Result<(), rusqlite::Error> {
        conn.prepare_cached(&self.insert)?.execute(row).map(drop)
    }
}

/// Tail and blocks: chunks as they were committed, and what was sealed of them. `age_ns` is the retention clock when the newest row
/// was recorded; `bytes` are plain in the tail, stored in a block.
fn event_tables(name: &str) -> String {
    let common = "last_sequence INTEGER PRIMARY KEY, first_sequence INTEGER NOT NULL, rows INTEGER NOT NULL, min_time_ns INTEGER NOT NULL,
        max_time_ns INTEGER NOT NULL, age_ns INTEGER NOT NULL, bytes INTEGER NOT NULL, layout INTEGER NOT NULL";
    format!(
        r#"CREATE TABLE IF NOT EXISTS "{name}_tail" ({common}, data BLOB NOT NULL);
        CREATE TABLE IF NOT EXISTS "{name}_blocks" ({common}, filters BLOB NOT NULL, data BLOB NOT NULL);"#
    )
}

/// Intervals; see `intervals.rs` for what `class` is.
fn history_tables(name: &str) -> String {
    format!(
        r#"CREATE TABLE IF NOT EXISTS "{name}_intervals" (key TEXT NOT NULL, valid_from_ns INTEGER NOT NULL, scope TEXT NOT NULL,
            valid_to_ns INTEGER, class INTEGER NOT NULL, age_ns INTEGER NOT NULL, ended_reason TEXT NOT NULL, evidence TEXT NOT NULL,
            layout INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (key, valid_from_ns, scope)) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS "{name}_time" ON "{name}_intervals" (class, valid_from_ns, valid_to_ns);"#
    )
}
