//! Since when a source has not seen its endpoint.

use mayfly_history::{Nanos, feed::cause, now};

use crate::supervise::Site;

/// Kept by a source over its connections.
#[derive(Debug)]
pub(crate) struct Sight {
    /// `None` before the very first look ever, and while the stream flows.
    blind_since: Option<Nanos>,
    /// The stream broke in this process, as against a recorder that was not there: that gap is the recorder's to tell.
    broke: bool,
}

impl Sight {
    /// For sources whose cursor is the time of their last event.
    pub(crate) fn new(site: &Site) -> Self {
        let last_event = || site.recorder.cursor(&site.feed)?.parse().ok();
        Self { blind_since: site.recorder.blind_since().or_else(last_event), broke: false }
    }

    /// As a snapshot has it.
    pub(crate) fn blind_since(&self) -> Option<Nanos> {
        self.blind_since
    }

    /// The stream broke, or was left, perhaps before anything was seen again.
    pub(crate) fn lose(&mut self) {
        self.blind_since.get_or_insert_with(now);
        self.broke = true;
    }

    /// The stream flows and what exists was listed; tells of the gap before.
    pub(crate) fn regain(&mut self, site: &Site, detail: &str) {
        if let Some(from) = self.blind_since.take()
            && std::mem::take(&mut self.broke)
        {
            site.feed.blind(cause::DAEMON_DOWN, from, Some(now()), 0, detail);
        }
    }
}
