//! Lease files of DHCP servers and clients: read when inotify says that they changed.
//!
//! Writers truncate, append or replace. So a file is read a moment after its last change, and a lease that vanished from it is believed to be
//! gone only when it is still not there a moment later.

mod book;
mod isc;
mod kea;
mod parse;
mod shelf;
mod watch;

use std::{io, time::Duration};

use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use parse::decode_lease_file;

use self::{shelf::Shelf, watch::Watch};
use crate::{
    error::SourceError,
    sight::Sight,
    supervise::{Site, Source},
};

/// A writer is done after this long without a change.
const SETTLE: Duration = Duration::from_millis(50);
/// A lease that vanished is looked for again after this.
const DOUBT: Duration = Duration::from_millis(200);

/// Follows the lease files.
#[derive(Debug)]
pub(crate) struct LeaseFiles {
    site: Site,
    sight: Sight,
}

impl LeaseFiles {
    pub(crate) fn new(site: Site) -> Self {
        let sight = Sight::new(&site);
        Self { site, sight }
    }
}

impl Source for LeaseFiles {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let failed = |reason| SourceError::Host { attempt: "watch the directories of lease files".into(), reason };
        let mut watch = Watch::new(&self.site.config.lease_file.paths).map_err(failed)?;
        let mut shelf = Shelf::new(self.site.clone(), self.sight.blind_since());
        watch.arm().map_err(failed)?;
        let mut doubts = shelf.look(&watch.files());
        self.site.feed.running();
        self.sight.regain(&self.site, "of leases that came and went meanwhile nothing is known");
        let follow = async {
            loop {
                if doubts {
                    // Whatever is told meanwhile waits.
                    tokio::time::sleep(DOUBT).await;
                } else {
                    watch.changed().await?;
                    tokio::time::sleep(SETTLE).await;
                }
                watch.arm()?;
                doubts = shelf.look(&watch.files());
            }
        };
        let ended: Option<io::Result<()>> = stop.run_until_cancelled(follow).await;
        self.sight.lose();
        ended.unwrap_or(Ok(())).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
