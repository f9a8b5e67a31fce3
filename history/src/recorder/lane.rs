//! A lane: one kind of item, from its ring to its tables. Containers have their own, the ledger.

use std::{fmt, time::Instant};

use super::{
    batch::Batch, heard::Finding, ledger::Moment, logs::TableId, seen::SeenAccounts, subject::Subject, timeline::Timeline, told::Told,
};
use crate::{
    container::ContainerKey,
    fact::{Change, Fact},
    record::Record,
    redact::Redaction,
    sink::{Excess, Sink},
    table::{EventTable, HistoryTable},
};

/// What a lane works with.
#[derive(Debug)]
pub(super) struct Desk<'d> {
    pub(super) batch: &'d mut Batch,
    pub(super) redaction: &'d Redaction,
    pub(super) seen: &'d SeenAccounts,
    pub(super) moment: Moment,
}

/// Takes what sources pushed, and writes what follows.
pub(super) trait Lane: fmt::Debug + Send {
    /// Its tables' first: under which what it keeps is found.
    fn name(&self) -> &'static str;

    /// Takes what its ring holds, at most so much; returns how much.
    fn drain(&mut self, most: usize, desk: &mut Desk<'_>) -> usize;

    /// What is known of a container changed.
    fn see_container(&mut self, _subject: &Subject, _moment: Moment) {}

    /// What was seen of a container turned out to be another's.
    fn withdraw_container(&mut self, _key: &ContainerKey) {}

    /// Does what is due, after whatever was drained and seen.
    fn settle(&mut self, _desk: &mut Desk<'_>) {}

    /// What it found out about containers since the last call.
    fn take_findings(&mut self) -> Vec<Finding> {
        Vec::new()
    }

    /// The recorder stops: nothing waits any longer.
    fn finish(&mut self, _desk: &mut Desk<'_>) {}

    /// When [`Lane::settle`] has something to do.
    fn next_alarm(&self) -> Option<Instant> {
        None
    }

    /// Takes up what the recorder before this one kept of it.
    fn restore(&mut self, _value: &[u8]) {}

    /// The store is empty, or lacks nobody knows what: all that is known goes into it.
    fn write_anew(&mut self, _desk: &mut Desk<'_>) {}
}

/// Between the parts of the name of what a lane keeps; no key of a container begins with a lane's name and this.
const SEPARATOR: char = '\u{1f}';

/// The name under which a lane keeps something for the next recorder.
pub(super) fn kept_name(lane: &str, what: &str) -> String {
    format!("{lane}{SEPARATOR}{what}")
}

/// The lane that kept something under that name; `None`: it is a container.
pub(super) fn lane_of(name: &str) -> Option<&str> {
    name.split_once(SEPARATOR).map(|(lane, _)| lane)
}

/// Records that become rows as they come.
#[derive(Debug)]
pub(super) struct EventLane<E: 'static> {
    sink: Sink<E>,
    table: TableId,
    declaration: &'static EventTable<E>,
    told: Told,
}

impl<E: Record> EventLane<E> {
    pub(super) fn new(sink: Sink<E>, table: TableId, declaration: &'static EventTable<E>) -> Self {
        Self { sink, table, declaration, told: Told::default() }
    }

    fn keep(&self, desk: &mut Desk<'_>) {
        desk.batch.keep(kept_name(self.declaration.name, "told"), Some(self.told.to_bytes()));
    }
}

impl<E: Record> Lane for EventLane<E> {
    fn name(&self) -> &'static str {
        self.declaration.name
    }

    fn drain(&mut self, most: usize, desk: &mut Desk<'_>) -> usize {
        let received = self.sink.drain(most);
        let taken = received.len();
        let columns = self.declaration.columns;
        let mut is_kept = true;
        for mut received in received {
            received.item.clean(desk.redaction, desk.moment.wall_ns);
            if let Some(cursor) = received.cursor {
                desk.batch.set_cursor(received.feed.stream(), cursor);
            }
            let identity = received.item.identity();
            if identity.is_some_and(|identity| !self.told.is_new(identity)) {
                desk.batch.add_known([(received.feed, received.item.time_ns())]);
                continue;
            }
            is_kept &= identity.is_none();
            for uid in received.item.users().into_iter().flatten() {
                desk.seen.users.see(uid, received.item.time_ns(), desk.moment.at);
            }
            if let Some(gid) = received.item.group() {
                desk.seen.groups.see(gid, received.item.time_ns(), desk.moment.at);
            }
            desk.batch.add_event(self.table, columns, &received.item, received.item.time_ns(), vec![received.feed]);
        }
        if !is_kept {
            self.keep(desk);
        }
        for Excess { first, events } in self.sink.take_excesses() {
            if let Some(mut row) = first.throttled(events, desk.moment.wall_ns) {
                row.clean(desk.redaction, desk.moment.wall_ns);
                desk.batch.add_event(self.table, columns, &row, row.time_ns(), Vec::new());
            }
        }
        taken
    }

    fn restore(&mut self, value: &[u8]) {
        self.told.restore(value);
    }

    fn write_anew(&mut self, desk: &mut Desk<'_>) {
        self.keep(desk);
    }
}

/// Facts whose changes become intervals as they come.
#[derive(Debug)]
pub(super) struct HistoryLane<S: Fact> {
    sink: Sink<Change<S>>,
    timeline: Timeline<S>,
    name: &'static str,
}

impl<S: Fact> HistoryLane<S> {
    pub(super) fn new(sink: Sink<Change<S>>, table: TableId, declaration: &'static HistoryTable<S>) -> Self {
        Self { sink, timeline: Timeline::new(table, declaration), name: declaration.name }
    }
}

impl<S: Fact> Lane for HistoryLane<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn drain(&mut self, most: usize, desk: &mut Desk<'_>) -> usize {
        let received = self.sink.drain(most);
        let taken = received.len();
        for received in received {
            if let Some(cursor) = received.cursor {
                desk.batch.set_cursor(received.feed.stream(), cursor);
            }
            if let Err(full) = self.timeline.take(received.item, desk) {
                received.feed.reject(full.to_string());
            }
        }
        taken
    }

    fn restore(&mut self, value: &[u8]) {
        if let Err(error) = self.timeline.restore(value) {
            tracing::warn!(table = self.name, %error, "what held when recording ended cannot be read");
        }
    }

    fn write_anew(&mut self, desk: &mut Desk<'_>) {
        self.timeline.write_anew(desk);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        Feed, bigint,
        process::{KernelStream, ProcessAction, ProcessEvent},
        recorder::{logs::TableList, seen::SeenIds, tests::recorded::declarations},
        sink::Bell,
        text,
    };

    static PROCESSES: EventTable<ProcessEvent> = EventTable {
        name: "container_process_events",
        doc: "",
        columns: &[
            text("action", |e: &ProcessEvent| Some(e.action.as_str().into()), ""),
            text("cmdline", |e| Some(e.cmdline.as_str().into()), ""),
            bigint("shed", |e| e.shed, ""),
        ],
        examples: &[],
    };

    fn exec(container: &str, cmdline: &str) -> ProcessEvent {
        let key = ContainerKey { container_id: container.into(), ..ContainerKey::default() };
        let event = ProcessEvent::shed(5, KernelStream::Ebpf, key, Some(1), 0);
        ProcessEvent { action: ProcessAction::Exec, cmdline: cmdline.into(), shed: None, ..event }
    }

    /// What the lane writes of these, pushed before it looks.
    fn written(events: impl IntoIterator<Item = ProcessEvent>, feed: &Feed, seen: &SeenAccounts) -> Batch {
        let sink = Sink::new(64, Bell::default());
        events.into_iter().for_each(|event| sink.push(feed, event));
        let declarations = declarations();
        let mut tables = TableList::new(declarations.container_events.schema(), declarations.container_history.schema());
        let table = tables.add(PROCESSES.schema());
        let mut batch = Batch::default();
        let moment = Moment { at: Instant::now(), wall_ns: 1000 };
        let mut desk = Desk { batch: &mut batch, redaction: &Redaction::default(), seen, moment };
        EventLane::new(sink, table, &PROCESSES).drain(512, &mut desk);
        batch
    }

    #[test]
    fn what_a_fork_bomb_does_beyond_its_share_is_a_row_that_counts_it() {
        let feed = Feed::new("ebpf", "");
        let bomb = (0..1000).map(|_| exec("bomb", "true"));
        let batch = written(std::iter::once(exec("quiet", "true")).chain(bomb), &feed, &SeenAccounts::default());
        let status = feed.status();
        assert_eq!((status.received, status.evicted, status.rejected), (1001, 0, 992));
        assert_eq!(batch.row_count(), 1 + 8 + 1, "the quiet one's, the share of the bomb, and a row for the rest");
        assert!(batch.has_row_with(b"throttled") && batch.has_row_with(b"true"));
    }

    #[test]
    fn secrets_in_arguments_are_dropped_before_anything_is_kept() {
        let batch = written([exec("c", "mysql --password=hunter2 --user=ann")], &Feed::new("ebpf", ""), &SeenAccounts::default());
        assert!(batch.has_row_with(b"--user=ann") && !batch.has_row_with(b"hunter2"));
    }

    #[test]
    fn the_hosts_users_and_groups_are_told_and_of_a_container_only_who_logged_in() {
        let seen = SeenAccounts::default();
        seen.users.on_seen(|| ());
        seen.groups.on_seen(|| ());
        let of = |container: &str, [uid, euid, auid, gid]: [i64; 4]| ProcessEvent {
            uid: Some(uid),
            euid: Some(euid),
            auid: Some(auid),
            gid: Some(gid),
            ..exec(container, "true")
        };
        written([of("", [1, 2, 3, 7]), of("c", [4, 5, 6, 8]), of("", [1, 1, 3, 7])], &Feed::new("ebpf", ""), &seen);
        let ids = |seen: &SeenIds| seen.take().iter().map(|seen| seen.id).collect::<Vec<_>>();
        assert_eq!((ids(&seen.users), ids(&seen.groups)), (vec![1, 2, 3, 6], vec![7]));
    }
}
