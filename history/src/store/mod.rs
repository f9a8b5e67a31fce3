//! The durable store: one SQLite file, `history.db`, written by one [`Writer`] and read by many [`Reader`]s.
//!
//! # Events
//! A transaction's events of a table are one *chunk* of its **tail** (`NAME_tail`): encoded rows, quickly compressed. A tail that is long
//! is sealed, oldest first, into **blocks** (`NAME_blocks`): up to 4096 events, one column after the other. Chunks and blocks carry
//! their ranges of sequence and time, blocks also which keys they contain, so that a scan opens only what it needs.
//!
//! # Intervals
//! `NAME_intervals`, one row for each, by `(key, start, scope)`, indexed by class of length and start (`intervals.rs`); its columns
//! are compressed row by row with a dictionary of the table's own (`dictionary.rs`).
//!
//! # Invariants
//! - One **sequence** numbers the events of all tables, in the order of their transactions. It is kept in `state`, so that no number is given
//!   twice, also after everything expired. A **generation** (`generation.rs`) begins with a new file, on another machine, or when an older
//!   file was put back; its number is also in `history.generation`, beside the file, and only grows. [`Eid`](crate::Eid) is both.
//! - All blocks of a table come before its tail, and none overlap: reading blocks, then chunks, by their last sequence number gives
//!   the events in order.
//! - Sealing and retention remove what they replace in the same transaction: a reader sees each event once.
//! - What a committed transaction wrote survives the death of the process. After a power cut the file is whole;
//!   what the kernel had not written by then (half a minute, mostly) is missing.
//! - Rows are read by the **layout** they were written with (`layout.rs`): the names and types of their columns. A column that a row
//!   does not have is NULL.
//! - Bytes from the file are never trusted: every decoder is bounded and reports damage (`wire.rs`, `frame.rs`, `block.rs`, `chunk.rs`). A damaged
//!   block is stepped over and counted, and a gap (`damage.rs`); the file is set aside only when SQLite itself finds it damaged.
//! - **Age**, which retention goes by, is counted by the store itself (`clock.rs`): a wall clock that steps expires nothing.
//!
//! # Files
//! `history.db` with `-wal` and `-shm`; `history.generation`; `history.alive`, when the recorder was last alive; `history.reserve`, a
//! megabyte that is freed when the disk is full, so that the gap can be written; `history.damaged`, what readers found to be damaged; `history.db.corrupt-TIME`, what was set aside. All
//! are 0600, the directory is made 0700.
//!
//! `PRAGMA user_version` is the format; a newer one is refused.

mod alive;
mod block;
mod chunk;
mod clock;
mod damage;
mod dictionary;
mod error;
mod events;
mod filter;
mod frame;
mod generation;
mod integrity;
mod intervals;
mod layout;
mod maintain;
mod open;
mod options;
mod projection;
mod reader;
mod retention;
mod row;
mod scan;
mod schema;
mod seal;
mod status;
mod tail;
mod transaction;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use block::fuzzing;
pub use error::StoreError;
pub use options::{StoreOptions, TableOptions};
pub use reader::Reader;
pub use row::RowBuf;
pub use scan::{EventRow, EventScan, Info, IntervalRow, IntervalScan, Limit, Scanned};
pub use transaction::{Interval, IntervalName, Transaction};
pub use writer::{EventLog, IntervalLog, Opened, Writer};
