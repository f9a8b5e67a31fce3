//! The memory of Mayfly: what happened (events) and what was true (intervals), kept in a bounded, durable store.
//!
//! Data flows one way: a source pushes a report into a [`Sink`], the [`recorder`] drains it, gives each event its
//! identity and writes it to the [`store`], and a table reads it back through a [`store::Reader`].
//! This crate knows neither sockets nor SQL tables; it depends on no other crate of the workspace.

pub mod account;
mod bound;
pub mod captures;
mod cell;
pub mod container;
pub mod device;
mod eid;
mod error;
mod fact;
pub mod feed;
pub mod identity;
pub mod image;
pub mod lease;
mod memory;
pub mod mount;
pub mod mounted;
pub mod oom;
pub mod port;
pub mod process;
mod record;
pub mod recorder;
mod redact;
pub mod sink;
pub mod socket;
pub mod store;
mod table;
mod time;
pub mod triggered;

pub use cell::{Cell, ColumnType, MAX_CELL};
pub use eid::Eid;
pub use error::chain;
pub use fact::{Change, Fact};
pub use feed::Feed;
pub use record::Record;
pub use redact::Redaction;
pub use sink::Sink;
pub use table::{Column, ColumnSpec, EventTable, Get, HistoryTable, Role, TableKind, TableSchema, bigint, integer, text};
pub use time::{Nanos, boot_id, boot_nanos, now};
