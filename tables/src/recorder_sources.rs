//! `recorder_sources`.

use std::sync::OnceLock;

use mayfly_history::{
    bigint,
    captures::SOURCE,
    feed::FeedStatus,
    store::{Reader, StoreError},
    text,
};

use crate::live::Live;

const SECOND: i64 = 1_000_000_000;

/// Counters are written as they are; past 63 bits they stay at the top.
fn count(n: u64) -> Option<i64> {
    Some(n.try_into().unwrap_or(i64::MAX))
}

/// A time that may not have come yet.
fn seconds(ns: i64) -> Option<i64> {
    (ns > 0).then_some(ns / SECOND)
}

/// Where no osquery has been, it is said why there are no histories of its tables.
fn rows(store: &Reader) -> Result<Vec<FeedStatus>, StoreError> {
    let mut sources = store.sources()?;
    if !sources.is_empty() && sources.iter().all(|status| status.source != SOURCE) {
        sources.push(FeedStatus {
            source: SOURCE.into(),
            state: "waiting".into(),
            hint: "no osqueryd has run the extension here: histories of osquery's tables are empty, those that Mayfly collects are not"
                .into(),
            ..FeedStatus::default()
        });
    }
    Ok(sources)
}

/// The sources, their health and their counters.
pub(crate) static TABLE: Live<FeedStatus> = Live {
    name: "recorder_sources",
    doc: "The sources of the recorder: whether each one sees, how much it saw and what it lost. Tells *quiet* from *blind*.",
    columns: &[
        text(
            "source",
            |s| Some(s.source.as_str().into()),
            "What is followed: `docker`, `podman`, `containerd`, `cri`, `ebpf`, `netlink`, `dhcp`, `lease_file`, `accounts`, `mounts`, \
             `devices`, `identity`, `tables`, `triggers` or `push`.",
        ),
        text("endpoint", |s| Some(s.endpoint.as_str().into()), "Where: a socket, an interface or a file; empty where there is only one."),
        text(
            "state",
            |s| Some(s.state.as_str().into()),
            "`running` (sees events), `waiting` (its endpoint is not there), `failed` (tried again after a pause) or `disabled`.",
        ),
        bigint("since_time", |s| seconds(s.since_ns), "When it entered this state, UNIX seconds."),
        bigint("events", |s| count(s.events), "Events stored, those included that confirmed what another source had told."),
        bigint("evicted", |s| count(s.evicted), "Events dropped because the recorder was behind: the oldest go first."),
        bigint("rejected", |s| count(s.rejected), "Events refused: not understood, or past the share of one container."),
        bigint("lost_in_kernel", |s| count(s.lost_in_kernel), "Events that the kernel dropped before they could be read."),
        bigint("lag_ms", |s| Some(s.lag_ms), "Milliseconds from the last event's own time until it was stored."),
        bigint("restarts", |s| count(s.restarts), "How often the source broke and was started again."),
        bigint("last_event_time", |s| seconds(s.last_event_ns), "Time of the newest event, UNIX seconds; NULL before the first."),
        text("last_error", |s| Some(s.last_error.as_str().into()), "What went wrong last; stays after the source has recovered."),
        text(
            "hint",
            |s| Some(s.hint.as_str().into()),
            "What would make the source see. Of a table that is followed: by how much a change may be seen late.",
        ),
    ],
    rows,
    as_of: None,
    examples: &[
        (
            "Sources that see nothing now, why, and what to do about it.",
            "SELECT source, endpoint, state, last_error, hint FROM recorder_sources WHERE state <> 'running';",
        ),
        (
            "Whether anything was lost.",
            "SELECT source, endpoint, events, evicted, rejected, lost_in_kernel FROM recorder_sources\n\
             WHERE evicted + rejected + lost_in_kernel > 0;",
        ),
    ],
    schema: OnceLock::new(),
};
