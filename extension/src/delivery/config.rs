//! The `[delivery]` section of the configuration.

use serde::Deserialize;

use super::decide::Start;

/// How events reach osquery's scheduled queries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryConfig {
    /// Where a query begins that was never seen before: `oldest` (default) or `now`.
    pub start: Start,
    /// Most rows of one answer. A run of a scheduled query reads at most so many events; the next goes on behind them.
    pub max_rows: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self { start: Start::default(), max_rows: 20_000 }
    }
}
