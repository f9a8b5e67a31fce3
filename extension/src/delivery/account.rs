//! What delivery tells whoever asks for `recorder_gaps` and `recorder_sources`: the extension, or any other process over the same directory.

use std::path::Path;

use mayfly_history::{
    chain,
    feed::{FeedState, FeedStatus, Gap},
    store::Reader,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{
    book::{BookError, FILE},
    decide::OFFERS,
};

/// Queries of which it is said that batches were given up.
const MOST_NAMED: i64 = 8;

/// What is kept of deliveries beside the cursors themselves.
#[derive(Debug, Default)]
struct Account {
    gaps: Vec<Gap>,
    /// What queries never took; empty: nothing.
    given_up: String,
}

/// Shows, beside what the recorder wrote to `store`, what the deliveries of `dir` lost. `own` is the connection with osquery of this process, if
/// it has one.
pub(crate) fn show_account(store: &mut Reader, dir: &Path, own: Option<FeedStatus>) {
    let (account, failure) = match Account::read(dir) {
        Ok(account) => (account, None),
        Err(error) => (Account::default(), Some(chain(&error))),
    };
    let elsewhere = || FeedStatus { source: "tables".into(), ..FeedStatus::default() };
    let said = failure.as_ref().or(Some(&account.given_up).filter(|text| !text.is_empty()));
    let mut status = own.or_else(|| said.map(|_| elsewhere()));
    if let Some((status, said)) = status.as_mut().zip(said) {
        let separator = if status.last_error.is_empty() { "" } else { "; " };
        status.last_error = format!("{}{separator}{said}", status.last_error);
        if failure.is_some() {
            status.state = FeedState::Failed.as_str().into();
        }
    }
    store.add(account.gaps, status.into_iter().collect());
}

impl Account {
    /// Without a book, nothing was ever delivered.
    fn read(dir: &Path) -> Result<Self, BookError> {
        let path = dir.join(FILE);
        let fail = |attempt| move |source| BookError::Database { attempt, path: dir.join(FILE), source };
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Ok(Self::default()),
            Err(source) => return Err(BookError::File { attempt: "look for", path, source }),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(fail("open the database"))?;
        // Whoever has just made it has not made the tables yet.
        let has_tables = db.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'gaps'", [], |_| Ok(())).optional();
        if has_tables.map_err(fail("read the tables"))?.is_none() {
            return Ok(Self::default());
        }
        Ok(Self { gaps: gaps(&db).map_err(fail("read the gaps"))?, given_up: given_up(&db).map_err(fail("read the cursors"))? })
    }
}

/// What retention dropped before it was delivered, the oldest first.
fn gaps(db: &Connection) -> rusqlite::Result<Vec<Gap>> {
    let mut rows = db.prepare("SELECT table_name, reader, cause, from_ns, to_ns FROM gaps ORDER BY id")?;
    rows.query_map([], |row| {
        Ok(Gap {
            source: "tables".into(),
            endpoint: row.get(0)?,
            cause: row.get(2)?,
            from_ns: row.get(3)?,
            to_ns: row.get(4)?,
            recovered: 0,
            detail: format!("events that {} was not given", row.get::<_, String>(1)?),
        })
    })?
    .collect()
}

fn given_up(db: &Connection) -> rusqlite::Result<String> {
    let mut rows = db.prepare("SELECT query, table_name, given_up FROM cursors WHERE given_up > 0 ORDER BY used_ns DESC LIMIT ?")?;
    let told: Vec<String> = rows
        .query_map([MOST_NAMED], |row| {
            let (query, table, batches): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("{batches} batches of {table} were given up, of which {query} took no row in {OFFERS} runs"))
        })?
        .collect::<rusqlite::Result<_>>()?;
    if told.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("{}: such a query fails, or its WHERE matches nothing", told.join("; ")))
}
