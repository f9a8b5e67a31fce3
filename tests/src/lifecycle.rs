//! Lifecycle events as the tests read them.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    Mayfly, Result,
    mayfly::{Row, number},
};

/// One row of `container_lifecycle_events`.
#[derive(Clone)]
pub struct Lifecycle(Row);

/// What matters of a row, in one line.
impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text("eid"), self.action())?;
        for column in ["time_ns", "source", "recovered", "pid", "exit_code", "lifetime_ms", "ip_addresses", "image", "image_id"] {
            match self.0.get(column) {
                None | Some(Value::Null) => {}
                Some(value) => write!(f, " {column}={value}")?,
            }
        }
        Ok(())
    }
}

impl Lifecycle {
    /// All rows, in the order of recording.
    pub fn all(mayfly: &Mayfly) -> Result<Vec<Self>> {
        let rows = mayfly.query("SELECT *, eid, runtime_namespace, endpoint FROM container_lifecycle_events ORDER BY eid")?;
        Ok(rows.into_iter().map(Self).collect())
    }

    /// A text column; empty where there is none.
    pub fn text(&self, column: &str) -> &str {
        self.0.get(column).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number column.
    pub fn number(&self, column: &str) -> Option<i64> {
        self.0.get(column).and_then(number)
    }

    pub fn action(&self) -> &str {
        self.text("action")
    }

    pub fn time_ns(&self) -> i64 {
        self.number("time_ns").unwrap_or_default()
    }

    /// Found after a gap, not seen live.
    pub fn recovered(&self) -> bool {
        self.number("recovered") == Some(1)
    }
}

/// The events of each container, under its name (its id where it has none), in the order of recording.
pub fn by_name(events: Vec<Lifecycle>) -> BTreeMap<String, Vec<Lifecycle>> {
    let mut containers: BTreeMap<String, Vec<Lifecycle>> = BTreeMap::new();
    for event in events {
        let name = if event.text("name").is_empty() { event.text("container_id") } else { event.text("name") };
        containers.entry(name.to_owned()).or_default().push(event);
    }
    containers
}

/// The `p`-th percentile (0–100) of `values`, which it sorts.
pub fn percentile(values: &mut [i64], p: usize) -> i64 {
    values.sort_unstable();
    values.get((values.len() * p / 100).min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
