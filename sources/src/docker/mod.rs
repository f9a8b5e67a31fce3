//! Docker, and Podman through the same API.

use tokio_util::sync::CancellationToken;

use crate::{
    error::SourceError,
    supervise::{Site, Source},
};

#[derive(Debug)]
pub(crate) struct Docker {
    site: Site,
}

impl Docker {
    pub(crate) fn new(site: Site) -> Self {
        Self { site }
    }
}

impl Source for Docker {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        self.site.feed.running();
        stop.cancelled().await;
        Ok(())
    }
}
