//! `recorder_gaps`.

use std::sync::OnceLock;

use mayfly_history::{bigint, feed::Gap, store::Reader, text};

use crate::{complete::covers, live::Live};

/// The periods in which a source was blind.
pub(crate) static TABLE: Live<Gap> = Live {
    name: "recorder_gaps",
    doc: "The periods in which a source was blind, the time before the oldest record included: *nobody had it* and *nobody looked* differ.",
    columns: &[
        text(
            "source",
            |g| Some(g.source.as_str().into()),
            "Who was blind, as in `recorder_sources`; `recorder`: all of them; `store`: nobody, but what was stored is damaged.",
        ),
        text("endpoint", |g| Some(g.endpoint.as_str().into()), "At which endpoint, or in which table; empty means everywhere."),
        text(
            "cause",
            |g| Some(g.cause.as_str().into()),
            "Why: `recorder_down`, `daemon_down`, `ring_full`, `stream_lagged`, `panicked`, `store_failed`, `damaged_block`, `before_first_record` or \
             `expired_undelivered`; of captured tables also `osquery_down`, `extension_down`, `registered_again` (osquery's tables came or went), \
             `not_followed` or `capture_failed`.",
        ),
        bigint("gap_from_ns", |g| Some(g.from_ns), "Start of the blind period, UNIX nanoseconds."),
        bigint("gap_to_ns", |g| g.to_ns, "End of the blind period (exclusive), UNIX nanoseconds; NULL while it lasts."),
        bigint("recovered_count", |g| Some(g.recovered), "How many events of the period were recovered afterwards."),
        text("detail", |g| Some(g.detail.as_str().into()), "What else is known of it; what could not be recovered is counted here."),
    ],
    rows: Reader::gaps,
    as_of: Some(covers),
    examples: &[
        (
            "Whether anybody looked at the time of the incident.",
            "SELECT source, endpoint, cause, detail FROM recorder_gaps WHERE as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "The longest blind periods.",
            "SELECT source, cause, datetime(gap_from_ns / 1000000000, 'unixepoch') AS since, (gap_to_ns - gap_from_ns) / 1000000 AS ms, recovered_count\n\
             FROM recorder_gaps WHERE gap_to_ns IS NOT NULL ORDER BY ms DESC LIMIT 10;",
        ),
    ],
    schema: OnceLock::new(),
};

#[cfg(test)]
mod tests {
    use mayfly_history::feed::cause;

    use super::*;

    #[test]
    fn each_cause_is_documented() {
        let doc = TABLE.columns.iter().find(|column| column.name == "cause").unwrap().doc;
        let missing: Vec<_> = cause::ALL.into_iter().filter(|cause| !doc.contains(&format!("`{cause}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
