//! What the worker does now and then.

use std::time::Duration;

use super::{Worker, saving::LONGEST_PAUSE};
use crate::{memory::resident, recorder::ledger::Moment};

/// How often the recorder says that it lives, and forgets what ended.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Reports between two heartbeats during which there is time to give memory back.
const LITTLE_WORK: usize = 512;

impl Worker {
    /// Keeps no room for what a storm brought: much of it is freed only now, by whoever ended what the storm had begun.
    fn give_back(&mut self) {
        self.ledger.shrink();
        self.shared.directory.shrink();
        self.sinks.containers.shrink();
        if let Some((writer, _)) = &mut self.writer {
            writer.shrink();
        }
        self.frugality.give_back(resident);
    }

    /// What is done now and then: says that it lives, forgets what ended, lets the store do its housework.
    pub(super) fn beat(&mut self, moment: Moment) {
        if self.ledger.is_crowded() {
            if self.batch.is_empty() {
                self.ledger.sweep(moment);
            } else if let Some(failing) = &mut self.failing {
                failing.sealed += self.batch.end(self.ledger.seal_oldest(moment));
            }
        }
        if moment.at >= self.heartbeat_at {
            self.heartbeat_at = moment.at + HEARTBEAT;
            if self.batch.is_empty() {
                self.ledger.sweep(moment);
            }
            self.status_at.get_or_insert(moment.at);
            if std::mem::take(&mut self.taken) < LITTLE_WORK && self.frugality.is_due(resident()) {
                self.give_back();
            }
            if self.failing.is_none()
                && let Some((writer, _)) = &mut self.writer
                && let Err(error) = writer.heartbeat()
            {
                self.note_failure(&error);
            }
        }
        if moment.at >= self.maintain_at {
            self.maintain_at = moment.at + LONGEST_PAUSE;
            match self.writer.as_mut().map(|(writer, _)| writer.maintain()) {
                Some(Ok(next)) => self.maintain_at = next,
                Some(Err(error)) if error.is_corrupt() => self.replace_store(&error),
                Some(Err(error)) => self.note_failure(&error),
                None => {}
            }
        }
    }
}
