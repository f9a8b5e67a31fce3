//! The `[push]` section of the configuration.

use mayfly_history::TableKind;
use mayfly_tables::{Home, TABLES, TRIGGERED_RESULTS, Table};
use serde::{Deserialize, Deserializer, de::Error};

/// What is sent to osquery's logger when it happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// False: nothing, not even results of triggers.
    pub enabled: bool,
    /// Event tables, by name. `triggered_results` need not be named.
    #[serde(deserialize_with = "event_tables")]
    pub tables: Vec<String>,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self { enabled: true, tables: Vec::new() }
    }
}

impl PushConfig {
    /// The tables of one store that are pushed.
    pub(super) fn tables(&self, home: Home) -> Vec<&'static dyn Table> {
        TABLES.iter().copied().filter(|table| table.home() == home && self.pushes(table.schema().name)).collect()
    }

    /// Whether the table of that name is pushed.
    pub fn pushes(&self, table: &str) -> bool {
        self.enabled && (table == TRIGGERED_RESULTS.name || self.tables.iter().any(|name| name == table))
    }
}

/// Refuses a name that is not an event table's: it would never push anything.
fn event_tables<'de, D: Deserializer<'de>>(names: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(names)?;
    let events: Vec<_> = TABLES.iter().map(|table| table.schema()).filter(|schema| schema.kind == TableKind::Events).collect();
    match names.iter().find(|name| events.iter().all(|schema| schema.name != **name)) {
        None => Ok(names),
        Some(name) => {
            let known: Vec<_> = events.iter().map(|schema| schema.name).collect();
            Err(D::Error::custom(format!("{name:?} is not an event table; there are: {}", known.join(", "))))
        }
    }
}
