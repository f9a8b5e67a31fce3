//! Every table that Mayfly serves.

use crate::query::Table;

pub static TABLES: &[&dyn Table] = &[];

/// The table of that name.
pub fn find(name: &str) -> Option<&'static dyn Table> {
    TABLES.iter().copied().find(|t| t.schema().name == name)
}
