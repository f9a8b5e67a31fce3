//! The durable store.

mod alive;
mod block;
mod chunk;
mod clock;
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
pub use transaction::{Interval, Transaction};
pub use writer::{EventLog, IntervalLog, Opened, Writer};
