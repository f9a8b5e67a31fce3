//! Devices: the block and USB devices of the host, and when they come and go, as the kernel says; and the hardware behind them.
//!
//! Of what a device was, sysfs shows nothing once it is gone: it is looked at when it comes, and remembered. The kernel numbers its
//! messages, but sends some to other network namespaces alone. So a missing number is only a reason to look whether sysfs still shows
//! what is known; where it does not, messages were lost.

mod inventory;
mod look;
mod session;
mod superblock;
mod sysfs;
#[cfg(test)]
mod tests;
mod turns;
mod uevent;

use std::path::PathBuf;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::session::Session;
pub(crate) use self::{
    sysfs::{Bottom, Sysfs, read},
    turns::LOOK_WITHIN,
};
use crate::{
    error::SourceError,
    sight::Sight,
    supervise::{Site, Source},
};

/// `[devices]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DevicesConfig {
    /// Whether to record devices at all. Default true.
    pub enabled: bool,
    /// The host's root, where the recorder's own is another; its `sys`, `dev` and `run` are read. Default `/`.
    pub root: PathBuf,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self { enabled: true, root: "/".into() }
    }
}

/// Follows the devices of the host.
#[derive(Debug)]
pub(crate) struct Devices {
    site: Site,
    sight: Sight,
}

impl Devices {
    pub(crate) fn new(site: Site) -> Self {
        let sight = Sight::new(&site);
        Self { site, sight }
    }
}

impl Source for Devices {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let open = |reason| SourceError::Host { attempt: "hear the kernel's messages about devices".into(), reason };
        let mut session = Session::open(self.site.clone()).map_err(open)?;
        session.list(self.sight.blind_since(), "startup").await;
        self.site.feed.running();
        self.sight.regain(&self.site, "of devices that came and went meanwhile nothing is known");
        let ended = session.run(&stop).await;
        self.sight.lose();
        ended.map_err(|reason| SourceError::Host { attempt: "read the kernel's messages about devices".into(), reason })
    }
}

/// What fuzzers call.
pub mod fuzzing {
    /// The first bytes of a hostile device.
    pub fn superblock(bytes: &[u8]) {
        let _ = super::superblock::name(bytes);
    }

    /// A message about a device.
    pub fn uevent(bytes: &[u8]) {
        let _ = super::uevent::parse(bytes);
    }
}
