//! Rows of intervals are short and alike: each is compressed alone, by a dictionary made of the first thousand.
//!
//! The dictionary is made once for each layout of a table, on a thread and connection of its own; rows from before stay
//! as they are, under the layout without one.

use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
};

use rusqlite::{Connection, OpenFlags};
use zstd::bulk::{Compressor, Decompressor};

use super::frame::{deflate, inflate};

/// So many rows are worth a dictionary.
const ROWS: u64 = 1000;
/// Most rows that it is made of.
const SAMPLES: usize = 2000;
/// Its size, in bytes.
const SIZE: usize = 64 << 10;
const LEVEL: i32 = 3;

/// Compresses rows one by one.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    has_dictionary: bool,
    /// Rows packed without a dictionary, and how many of them are worth one.
    packed: u64,
    enough: u64,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("has_dictionary", &self.has_dictionary).field("packed", &self.packed).finish_non_exhaustive()
    }
}

impl Packer {
    pub(super) fn new(dictionary: Option<&[u8]>) -> io::Result<Self> {
        let compressor = dictionary.map_or_else(|| Compressor::new(LEVEL), |bytes| Compressor::with_dictionary(LEVEL, bytes))?;
        Ok(Self { compressor, has_dictionary: dictionary.is_some(), packed: 0, enough: ROWS })
    }

    pub(super) fn pack(&mut self, row: &[u8]) -> io::Result<Vec<u8>> {
        self.packed += 1;
        deflate(row, &mut self.compressor)
    }

    pub(super) fn wants_dictionary(&self) -> bool {
        !self.has_dictionary && self.packed >= self.enough
    }

    /// Waits for more rows before it wants one again.
    pub(super) fn put_off(&mut self) {
        self.enough = self.packed.saturating_mul(4);
    }
}

/// A dictionary in the making.
#[derive(Debug)]
pub(super) struct Training(Receiver<Vec<u8>>);

impl Training {
    /// Begins to make a dictionary of the rows of `table` that have that layout.
    pub(super) fn begin(path: &Path, table: &str, layout: i64) -> Result<Self, rusqlite::Error> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let (tell, dictionary) = sync_channel(1);
        let table = table.to_owned();
        let train = move || match samples(&conn, &table, layout) {
            Ok(rows) => match zstd::dict::from_samples(&rows, SIZE) {
                // Nobody may be there to take it any more.
                Ok(made) => drop(tell.send(made)),
                Err(error) => tracing::debug!(table, %error, "no dictionary can be made of these rows"),
            },
            Err(error) => tracing::warn!(table, %error, "cannot read rows to make a dictionary of"),
        };
        if let Err(error) = thread::Builder::new().name("dictionary".into()).spawn(train) {
            tracing::warn!(%error, "rows are stored without a dictionary");
        }
        Ok(Self(dictionary))
    }

    /// `None` while it is made; then what was made, if anything could be.
    pub(super) fn finished(&self) -> Option<Option<Vec<u8>>> {
        match self.0.try_recv() {
            Ok(dictionary) => Some(Some(dictionary)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }
}

fn samples(conn: &Connection, table: &str, layout: i64) -> Result<Vec<Vec<u8>>, rusqlite::Error> {
    let sql = format!(r#"SELECT row FROM "{table}_intervals" WHERE layout = ? LIMIT {SAMPLES}"#);
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([layout])?;
    let mut samples = Vec::new();
    let mut decompressor = Decompressor::new().map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    while let Some(row) = rows.next()? {
        let mut plain = Vec::new();
        if inflate(row.get_ref(0)?.as_blob()?, &mut decompressor, &mut plain).is_ok() {
            samples.push(plain);
        }
    }
    Ok(samples)
}
