//! The tables: one file and one registry line each.

mod query;
mod registry;

pub use query::{Answered, Constraint, Op, Query, Rows, Table, TableError};
pub use registry::{TABLES, find};
