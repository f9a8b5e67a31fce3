//! Every table that Mayfly serves.

use crate::{
    container_history, container_image_events, container_lifecycle_events, query::Table, recorder_gaps, recorder_info, recorder_sources,
};

pub static TABLES: &[&dyn Table] = &[
    &container_lifecycle_events::TABLE,
    &container_history::TABLE,
    &container_image_events::TABLE,
    &recorder_sources::TABLE,
    &recorder_gaps::TABLE,
    &recorder_info::TABLE,
];

/// The table of that name.
pub fn find(name: &str) -> Option<&'static dyn Table> {
    TABLES.iter().copied().find(|t| t.schema().name == name)
}
