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

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

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
/// Reading takes this part of the time at most.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(10);

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
        let shelf = Shelf::new(self.site.clone(), self.sight.blind_since());
        watch.arm().map_err(failed)?;
        let looked = look(shelf, watch.files()).await.map_err(failed)?;
        self.site.feed.running();
        self.sight.regain(&self.site, "of leases that came and went meanwhile nothing is known");
        let ended = run(watch, looked, &stop).await;
        self.sight.lose();
        ended.map_err(failed)
    }
}

/// How a look at all files went.
struct Looked {
    shelf: Shelf,
    /// A lease vanished, so that it is to be looked for again.
    doubts: bool,
    took: Duration,
}

/// Reads what changed; the files of a large server take long, and the other sources go on meanwhile.
async fn look(mut shelf: Shelf, present: BTreeSet<PathBuf>) -> io::Result<Looked> {
    let look = move || {
        let begun = Instant::now();
        let doubts = shelf.look(&present);
        Looked { shelf, doubts, took: begun.elapsed() }
    };
    tokio::task::spawn_blocking(look).await.map_err(io::Error::other)
}

async fn run(mut watch: Watch, mut looked: Looked, stop: &CancellationToken) -> io::Result<()> {
    while let Some(due) = stop.run_until_cancelled(is_due(&mut watch, &looked)).await {
        due?;
        watch.arm()?;
        // It is not left alone by a stop: what it tells would mix with what the source tells when it begins again.
        looked = look(looked.shelf, watch.files()).await?;
    }
    Ok(())
}

/// Waits until there is something to be looked at.
async fn is_due(watch: &mut Watch, last: &Looked) -> io::Result<()> {
    tokio::time::sleep((last.took * REST).min(LONGEST_REST)).await;
    if last.doubts {
        // Whatever is told meanwhile waits.
        tokio::time::sleep(DOUBT).await;
    } else {
        watch.changed().await?;
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
