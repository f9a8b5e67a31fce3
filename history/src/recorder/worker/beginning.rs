//! How a worker takes up what the recorder before it knew.

use std::{path::PathBuf, sync::Arc, time::Instant};

use super::{Worker, own_gap};
use crate::{
    container::{ContainerEvent, ContainerState},
    feed::{Gap, cause},
    memory::Frugality,
    recorder::{
        Shared, Sinks,
        batch::Batch,
        gaps::Gaps,
        lane::{Lane, lane_of},
        ledger::{Ledger, Moment},
        logs::{Logs, TableList},
        subject::Subject,
    },
    redact::Redaction,
    store::{StoreError, StoreOptions, Writer},
    table::{EventTable, HistoryTable},
    time::{Nanos, now},
};

/// What a worker begins with.
#[derive(Debug)]
pub(in crate::recorder) struct Beginning {
    pub(in crate::recorder) dir: PathBuf,
    pub(in crate::recorder) store: StoreOptions,
    pub(in crate::recorder) events: &'static EventTable<ContainerEvent>,
    pub(in crate::recorder) history: &'static HistoryTable<ContainerState>,
    pub(in crate::recorder) lanes: Vec<Box<dyn Lane>>,
    pub(in crate::recorder) tables: TableList,
    pub(in crate::recorder) redaction: Redaction,
    pub(in crate::recorder) notes: Vec<(String, String)>,
    pub(in crate::recorder) writer: Writer,
    pub(in crate::recorder) kept: Kept,
    /// Since when nobody recorded; `None`: nobody ever did.
    pub(in crate::recorder) blind_since: Option<Nanos>,
}

/// What the recorder before this one left in the store.
#[derive(Debug)]
pub(in crate::recorder) struct Kept {
    logs: Logs,
    subjects: Vec<(String, Vec<u8>)>,
    open_gaps: Vec<Gap>,
}

impl Kept {
    pub(in crate::recorder) fn read(writer: &mut Writer, tables: &TableList) -> Result<Self, StoreError> {
        Ok(Self { logs: tables.open(writer)?, subjects: writer.subjects()?, open_gaps: writer.open_gaps()? })
    }
}

impl Worker {
    /// Takes up what the recorder before this one knew.
    pub(in crate::recorder) fn begin(beginning: Beginning, shared: Arc<Shared>, sinks: Sinks) -> Self {
        let Beginning { dir, store, events, history, mut lanes, tables, redaction, notes, writer, kept, blind_since } = beginning;
        let Kept { logs, subjects, open_gaps } = kept;
        let (mut ledger, mut gaps) = (Ledger::default(), Gaps::default());
        let moment = Moment { at: Instant::now(), wall_ns: now() };
        let mut containers = Vec::new();
        for (key, bytes) in subjects {
            if let Some(name) = lane_of(&key) {
                if let Some(lane) = lanes.iter_mut().find(|lane| lane.name() == name) {
                    lane.restore(&bytes);
                }
                continue;
            }
            match serde_json::from_slice::<Subject>(&bytes) {
                Ok(subject) => {
                    if subject.sealed_ns.is_none() {
                        shared.directory.put(&subject.key, &subject.course().newest_run());
                    }
                    containers.push(subject.key.clone());
                    ledger.restore(subject, moment);
                }
                Err(error) => tracing::warn!(key, %error, "what was known of a container cannot be read"),
            }
        }
        for subject in containers.iter().filter_map(|key| ledger.subject(key)) {
            lanes.iter_mut().for_each(|lane| lane.see_container(subject, moment));
        }
        // What was blind when the last recorder ended is from here on its own gap.
        for gap in open_gaps {
            let to_ns = blind_since.unwrap_or(moment.wall_ns).max(gap.from_ns);
            gaps.put(Gap { to_ns: Some(to_ns), ..gap });
        }
        if let Some(from_ns) = blind_since {
            gaps.put(own_gap(cause::RECORDER_DOWN, from_ns.min(moment.wall_ns), moment.wall_ns, String::new()));
        }
        let mut batch = Batch::default();
        batch.notes = notes;
        // What the sources of the recorder before this one were doing is not what they do now.
        batch.sources = Some(Vec::new());
        Self {
            dir,
            store,
            events,
            history,
            tables,
            redaction,
            shared,
            sinks,
            writer: Some((writer, logs)),
            failing: None,
            replaced_at: None,
            ledger,
            batch,
            gaps,
            lanes,
            statuses: Vec::new(),
            status_ns: moment.wall_ns,
            status_at: None,
            next_status: moment.at,
            heartbeat_at: moment.at,
            maintain_at: moment.at,
            taken: 0,
            frugality: Frugality::default(),
        }
    }
}
