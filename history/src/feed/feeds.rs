//! The feeds of one process that writes a store.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{Feed, FeedStatus, Gap};
use crate::{sink::Bell, time::now};

/// Feeds, and a bell that rings when readers should see something of one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bell: Bell,
    feeds: Mutex<Vec<Feed>>,
}

impl Feeds {
    fn lock(&self) -> MutexGuard<'_, Vec<Feed>> {
        self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A feed whose status and gaps are written; the same one for the same source and endpoint.
    pub fn feed(&self, source: &'static str, endpoint: &str) -> Feed {
        let mut feeds = self.lock();
        if let Some(feed) = feeds.iter().find(|f| f.source() == source && **f.endpoint() == *endpoint) {
            return feed.clone();
        }
        let feed = Feed::with_bell(source, endpoint, Some(self.0.bell.clone()));
        feeds.push(feed.clone());
        drop(feeds);
        self.wake();
        feed
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Feed> {
        self.lock().clone()
    }

    /// What rings when something changed.
    pub(crate) fn bell(&self) -> &Bell {
        &self.0.bell
    }

    /// Those of one source.
    pub fn of(&self, source: &str) -> Vec<Feed> {
        self.lock().iter().filter(|feed| feed.source() == source).cloned().collect()
    }

    /// How they fare now.
    pub fn statuses(&self) -> Vec<FeedStatus> {
        self.lock().iter().map(Feed::status).collect()
    }

    /// Gaps that wait to be written.
    pub fn take_gaps(&self) -> Vec<Gap> {
        let feeds = self.lock();
        feeds.iter().for_each(|feed| feed.mend(now()));
        feeds.iter().flat_map(Feed::take_gaps).collect()
    }

    /// Waits until something changed (true) or the deadline passes.
    pub fn wait(&self, deadline: Instant) -> bool {
        self.0.bell.wait(Some(deadline))
    }

    /// Ends a wait.
    pub fn wake(&self) {
        self.0.bell.ring();
    }
}
