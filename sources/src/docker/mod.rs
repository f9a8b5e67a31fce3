//! Docker, and Podman through the same API.
//!
//! A session subscribes from the last event that was seen, then lists all containers; from then on each event is pushed as it comes, and what an
//! inspect tells follows as details. See [`stream`] for the order and [`decode`] for what events say.

mod api;
mod decode;
mod files;
mod image;
mod inspect;
mod jobs;
mod proof;
mod reconcile;
mod stream;

pub(crate) use proof::Keeper;

use mayfly_history::{Nanos, feed::cause, now};
use tokio_util::sync::CancellationToken;

use crate::{
    error::SourceError,
    supervise::{Site, Source},
};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

/// One daemon, over all its connections.
#[derive(Debug)]
pub(crate) struct Docker {
    site: Site,
    labels: decode::Labels,
    disk: files::Disk,
    /// Time of the newest event that was seen.
    position: Option<Nanos>,
    /// A session delivered the list of containers: what was before it is accounted for.
    listed: bool,
    /// When the stream broke after that.
    blind_since: Option<Nanos>,
}

impl Docker {
    pub(crate) fn new(site: Site) -> Self {
        Self { site, labels: decode::Labels::default(), disk: files::Disk::default(), position: None, listed: false, blind_since: None }
    }

    async fn session(&mut self) -> Result<(), SourceError> {
        let (session, lines) = stream::Session::open(self).await?;
        session.run(lines).await
    }
}

impl Source for Docker {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let outcome = stop.run_until_cancelled(self.session()).await.unwrap_or(Ok(()));
        if self.listed && self.blind_since.is_none() {
            let since = now();
            self.blind_since = Some(since);
            if let Err(error) = &outcome {
                self.site.feed.blind(cause::DAEMON_DOWN, since, None, 0, crate::error::chain(error));
            }
        }
        outcome
    }
}

/// Entry points for fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    use mayfly_history::container::Runtime;

    /// Decodes one line of an event stream, and the same once more as an inspect's answer.
    pub fn decode_event(line: &[u8]) {
        for runtime in [Runtime::Docker, Runtime::Podman] {
            let _ = super::decode::decode(line, runtime, &mut super::decode::Labels::default());
        }
    }

    /// Decodes the answer to an inspect.
    pub fn decode_inspect(answer: &[u8]) {
        if let Ok(inspect) = serde_json::from_slice::<super::inspect::Inspect>(answer) {
            let _ = (inspect.details(Runtime::Docker), inspect.state());
        }
    }
}
