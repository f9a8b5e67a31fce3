//! `recorder_info`.

use std::{borrow::Cow, sync::OnceLock};

use mayfly_history::{bigint, now, store::Info, text};

use crate::live::Live;

const SECOND: i64 = 1_000_000_000;
/// The recorder gives a sign of life every few seconds; one that gave none for this long is gone.
const GONE_AFTER: i64 = 30 * SECOND;

/// What the recorder wrote about itself under this key.
fn note<'r>(info: &'r Info, key: &str) -> Option<Cow<'r, str>> {
    info.notes.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str().into())
}

fn number(info: &Info, key: &str) -> Option<i64> {
    note(info, key)?.parse().ok()
}

/// The recorder that is alive.
fn recorder(info: &Info) -> Option<i64> {
    let alive = info.alive_ns.is_some_and(|alive| now().saturating_sub(alive) < GONE_AFTER);
    number(info, "pid").filter(|_| alive)
}

/// The recorder and its store: one row.
pub(crate) static TABLE: Live<Info> = Live {
    name: "recorder_info",
    doc: "The recorder of this host and its store: one row.",
    columns: &[
        text("version", |i| note(i, "version"), "Version of the recorder that wrote the store last."),
        text(
            "role",
            |i| Some(if recorder(i) == Some(std::process::id().into()) { "recorder" } else { "reader" }.into()),
            "What the process that answers is: the `recorder` itself, or a `reader` of its store.",
        ),
        bigint("pid", recorder, "Process id of the recorder; NULL if none has been alive for half a minute: nobody records."),
        text("store_uuid", |i| Some(i.store_uuid.as_str().into()), "Identity of the store's file."),
        text(
            "generation",
            |i| Some(format!("{:010}", i.generation).into()),
            "UNIX second at which this run of event ids began, with a new store or on a copy of the host; every new `eid` starts with it.",
        ),
        text("state_dir", |i| note(i, "state_dir"), "Folder that the store lies in."),
        bigint("db_size", |i| Some(i.db_size), "Bytes of the store, its journal included."),
        bigint("oldest_time", |i| i.oldest_ns.map(|ns| ns.div_euclid(SECOND)), "Time of the oldest record that is kept, UNIX seconds."),
        bigint("started_time", |i| number(i, "started_ns").map(|ns| ns.div_euclid(SECOND)), "When that recorder started, UNIX seconds."),
        text("config_path", |i| note(i, "config_path"), "Configuration file that it read; empty if it found none."),
        text("kernel_btf", |i| note(i, "kernel_btf"), "1 if the kernel describes its types, which probes need, 0 if not."),
        text("capabilities", |i| note(i, "capabilities"), "Linux capabilities that the recorder holds, comma-separated."),
    ],
    rows: |store| store.info().map(|info| vec![info]),
    as_of: None,
    examples: &[
        (
            "How far back the memory reaches, and what it takes.",
            "SELECT datetime(oldest_time, 'unixepoch') AS oldest, db_size / 1048576 AS mib FROM recorder_info;",
        ),
        (
            "Which version records, and since when.",
            "SELECT version, role, pid, datetime(started_time, 'unixepoch') AS started FROM recorder_info;",
        ),
    ],
    schema: OnceLock::new(),
};
