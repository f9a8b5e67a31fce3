//! The `[store]` section of the configuration: how much is kept.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

/// What is kept, and for how long. Whichever bound is met first drops the oldest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// Days that events and ended intervals are kept after they were recorded.
    pub max_age_days: u32,
    /// Rows kept of each table.
    pub max_rows: u64,
    /// Size of the whole store on disk, its write-ahead log included, in MiB; at least 32.
    pub max_size_mib: u64,
    /// Bounds of single tables, by name.
    pub tables: BTreeMap<String, TableOptions>,
}

/// `[store.tables.NAME]`: bounds of one table; what is not set is as in `[store]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    pub max_age_days: Option<u32>,
    pub max_rows: Option<u64>,
    pub max_size_mib: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { max_age_days: 30, max_rows: 20_000_000, max_size_mib: 1024, tables: BTreeMap::new() }
    }
}

/// The bounds of one table, worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) age: Duration,
    pub(super) rows: u64,
    /// `None`: only the whole store is bounded.
    pub(super) bytes: Option<u64>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl StoreOptions {
    pub(super) fn bounds(&self, table: &str) -> Bounds {
        let own = self.tables.get(table).cloned().unwrap_or_default();
        Bounds {
            age: DAY.saturating_mul(own.max_age_days.unwrap_or(self.max_age_days)),
            rows: own.max_rows.unwrap_or(self.max_rows),
            bytes: own.max_size_mib.map(mebibytes),
        }
    }

    /// Bound on the whole store, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        mebibytes(self.max_size_mib.max(32))
    }
}

const fn mebibytes(n: u64) -> u64 {
    n.saturating_mul(1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_own_bounds_or_those_of_the_store() {
        let options: StoreOptions =
            serde_json::from_str(r#"{"max_age_days":7,"tables":{"container_lifecycle_events":{"max_rows":10,"max_size_mib":1}}}"#).unwrap();
        let own = options.bounds("container_lifecycle_events");
        assert_eq!((own.age, own.rows, own.bytes), (DAY * 7, 10, Some(1 << 20)));
        let other = options.bounds("container_history");
        assert_eq!((other.age, other.rows, other.bytes), (DAY * 7, 20_000_000, None));
    }

    #[test]
    fn refuses_a_key_that_it_does_not_know() {
        let refusal = serde_json::from_str::<StoreOptions>(r#"{"max_age":7}"#).unwrap_err().to_string();
        assert!(refusal.contains("`max_age`"), "{refusal}");
    }
}
