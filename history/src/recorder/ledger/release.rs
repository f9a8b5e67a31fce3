//! Which rows need not wait any longer.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Entry, Ledger, Moment};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Witness},
    recorder::{
        hold::Told,
        subject::{Mark, Via},
    },
};

impl Ledger {
    /// Releases the rows that need not wait (longer).
    pub(in crate::recorder) fn settle(&mut self, now: Moment) {
        while let Some(Reverse((at, _))) = self.alarms.peek()
            && *at <= now.at
        {
            // Most of what was due was released before.
            let is_waiting = |e: &Entry| !e.held.is_empty() || e.bucket.is_some_and(|b| b.window_ends().is_some());
            if let Some(Reverse((_, key))) = self.alarms.pop()
                && self.entries.get(&key).is_some_and(is_waiting)
            {
                self.touched.insert(key);
            }
        }
        for key in std::mem::take(&mut self.touched) {
            self.find_split(&key, now);
            self.release(&key, now, false);
            self.close_window(&key, now, false);
            self.watch_ending(&key, now);
            self.output.dirty.insert(key);
        }
    }

    /// Releases everything: the recorder stops.
    pub(in crate::recorder) fn flush(&mut self, now: Moment) {
        let keys: Vec<_> = self.entries.iter().filter(|(_, e)| !e.held.is_empty() || e.bucket.is_some()).map(|(k, _)| k.clone()).collect();
        for key in keys {
            self.release(&key, now, true);
            self.close_window(&key, now, true);
            self.output.dirty.insert(key);
        }
    }

    pub(super) fn release(&mut self, key: &ContainerKey, now: Moment, all: bool) {
        let Some(entry) = self.entries.get_mut(key).filter(|e| !e.held.is_empty()) else { return };
        let mut held = std::mem::take(&mut entry.held);
        let course = entry.subject.course();
        held.sort_by_cached_key(|h| h.order(&course));
        let overdue = if all { held.len() } else { held.iter().rposition(|h| h.due <= now.at).map_or(0, |i| i + 1) };
        let ready = held[overdue..].iter().take_while(|h| h.is_ready(&course)).count();
        entry.held = held.split_off(overdue + ready);
        let mut rows = Vec::new();
        for held in held {
            // What was created before our eyes was not merely found; and one event may have been told while it waited.
            let superseded = match held.event.action {
                Action::Existing => course.turning_points().any(|(a, group)| a == Action::Create && group.iter().any(|s| s.told)),
                _ => {
                    course.kin(&held.mark).iter().any(|s| s.told)
                        || rows.iter().any(|(m, _)| course.kin(&held.mark).iter().any(|s| s.mark == *m))
                }
            };
            if superseded {
                let time_ns = held.event.time_ns;
                self.output.known.extend(held.feeds.into_iter().map(|feed| (feed, time_ns)));
            } else {
                rows.push((held.mark.clone(), held.complete(&course)));
            }
        }
        for (mark, told) in rows {
            entry.subject.tell(&mark);
            self.output.told.push(told);
        }
        self.output.dirty.insert(key.clone());
    }

    /// Tells how many events of a container were shed, once a window.
    pub(super) fn close_window(&mut self, key: &ContainerKey, now: Moment, all: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(bucket) = entry.bucket.as_mut().filter(|b| b.window_ends().is_some_and(|ends| all || ends <= now.at)) else { return };
        let Some(shed) = bucket.close() else { return };
        let mark = Mark { time_ns: now.wall_ns, action: Action::Throttled, witness: Witness::Reconcile, via: Via::Stream, exec_id: None };
        let mut details = entry.subject.course().details_at(&mark);
        details.run.exit_code = None;
        let source = entry.subject.facts.keys().next().copied().unwrap_or_default();
        let event = ContainerEvent {
            time_ns: now.wall_ns,
            action: Action::Throttled,
            source,
            recovered: false,
            key: key.clone(),
            exec_id: None,
            lifetime_ms: None,
            details,
            attributes: BTreeMap::from([("shed".to_owned(), shed.to_string())]),
            settled: true,
        };
        self.output.told.push(Told { event: Box::new(event), feeds: Vec::new() });
    }
}
