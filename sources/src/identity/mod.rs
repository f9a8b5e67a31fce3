//! Who this host is: by its own files and interfaces, by its cloud, by its orchestrator; told again when something of it changes.

mod incarnation;
mod local;
mod metadata;
mod routes;
mod spot;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use mayfly_history::{
    Change, Fact, chain,
    identity::{Cloud, Identity},
    now,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::spot::{Spot, SpotError};
use self::{
    incarnation::Incarnation,
    local::Local,
    metadata::{Provider, Service},
    routes::Routes,
};
use crate::{
    error::SourceError,
    supervise::{Site, Source},
};

/// `[identity]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Whether to record it at all. Default true.
    pub enabled: bool,
    /// `auto`: ask the cloud that the firmware names; `aws`, `gce`, `azure`: ask that one; `none`. Default `auto`.
    pub cloud: CloudChoice,
    /// Where the metadata service is. Default `http://169.254.169.254`.
    pub metadata_url: String,
    /// Seconds between two looks at the cloud's word, whose tags change. Default 900.
    pub refresh_seconds: u64,
    /// The host's root, where the recorder's own is another. Default `/`.
    pub root: PathBuf,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            cloud: CloudChoice::Auto,
            metadata_url: "http://169.254.169.254".into(),
            refresh_seconds: 900,
            root: "/".into(),
        }
    }
}

/// Which cloud is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudChoice {
    Auto,
    None,
    Aws,
    Gce,
    Azure,
}

/// Who saw what is told here.
const EVIDENCE: &str = "identity";
/// Interfaces of containers come and go; what that means for the host is looked at no more often than this.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// The first pause after a service that did not answer; doubled up to the time of a refresh.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// What is kept from one recorder to the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    incarnation: Incarnation,
    /// Stands in until the service answers again.
    cloud: Cloud,
    boot_id: String,
}

/// Follows the host's identity.
#[derive(Debug)]
pub(crate) struct HostIdentity {
    site: Site,
    config: IdentityConfig,
    kept: Option<Kept>,
    told: Option<Identity>,
}

impl HostIdentity {
    pub(crate) fn new(site: Site) -> Self {
        let kept = site.recorder.cursor(&site.feed).and_then(|kept| serde_json::from_str(&kept).ok());
        Self { config: site.config.identity.clone(), site, kept, told: None }
    }

    fn provider(&self, local: &Local) -> Option<Provider> {
        match self.config.cloud {
            CloudChoice::Auto => local.provider(),
            CloudChoice::None => None,
            CloudChoice::Aws => Some(Provider::Aws),
            CloudChoice::Gce => Some(Provider::Gce),
            CloudChoice::Azure => Some(Provider::Azure),
        }
    }

    /// Tells who the host is, if that is something else than was told before.
    fn tell(&mut self, mut identity: Identity, cloud: Cloud, root_filesystem: &str) {
        identity.cloud = cloud;
        let before = self.kept.as_ref().map(|kept| &kept.incarnation).filter(|incarnation| !incarnation.id.is_empty());
        let incarnation = Incarnation::after(before, &identity, root_filesystem);
        let is_another = before.is_some_and(|before| before.id != incarnation.id);
        identity.incarnation_id.clone_from(&incarnation.id);
        if is_another {
            tracing::warn!("this host began as a copy of another: its events are of a new generation");
            self.site.recorder.begin_generation();
        }
        self.kept = Some(Kept { incarnation, cloud: identity.cloud.clone(), boot_id: identity.boot_id.clone() });
        if self.told.as_ref() == Some(&identity) {
            return;
        }
        let taken_ns = now();
        let sink = self.site.recorder.sinks().of();
        let change = match &self.told {
            None => {
                let blind_since = self.site.recorder.blind_since();
                Change::Present { group: String::new(), facts: vec![identity.clone()], taken_ns, blind_since, evidence: "startup" }
            }
            Some(told) => {
                if told.key() != identity.key() {
                    let (key, scope) = (told.key().into_owned(), String::new());
                    sink.push(&self.site.feed, Change::Ended { key, scope, at_ns: taken_ns, reason: "changed", evidence: EVIDENCE });
                }
                Change::Holds { fact: identity.clone(), at_ns: taken_ns, evidence: EVIDENCE }
            }
        };
        // Made of texts and maps of texts, which JSON has.
        let kept = serde_json::to_string(&self.kept).unwrap_or_default();
        sink.push_at(&self.site.feed, change, kept);
        self.told = Some(identity);
    }

    /// What was told of the cloud last, as far as it is this very host's.
    fn remembered(&self, identity: &Identity) -> Cloud {
        let same = self.kept.as_ref().filter(|kept| kept.boot_id == identity.boot_id);
        same.map(|kept| kept.cloud.clone()).unwrap_or_default()
    }
}

impl Source for HostIdentity {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let local = Local { root: self.config.root.clone() };
        let broken = |reason: std::io::Error| SourceError::Broken {
            endpoint: "rtnetlink".into(),
            request: "changes of addresses".into(),
            reason: reason.into(),
        };
        let routes = Routes::open().map_err(broken)?;
        let provider = self.provider(&local);
        let service = Service { base: self.config.metadata_url.trim_end_matches('/').to_owned() };
        let root_filesystem = blocking({
            let local = local.clone();
            move || local.root_filesystem()
        })
        .await;
        let refresh = Duration::from_secs(self.config.refresh_seconds.max(10));
        let mut pause = FIRST_PAUSE.min(refresh);
        let mut cloud = None;
        let mut next_ask = Instant::now();
        loop {
            let mut identity = blocking({
                let local = local.clone();
                move || local.identity()
            })
            .await;
            if let Some(cluster) = ecs_cluster().await {
                identity.ecs_cluster = cluster;
            }
            if let Some(provider) = provider
                && Instant::now() >= next_ask
            {
                let asked = stop.run_until_cancelled(service.ask(provider)).await;
                let wait = match asked {
                    None => return Ok(()),
                    Some(Ok(told)) => {
                        cloud = Some(told);
                        pause = FIRST_PAUSE.min(refresh);
                        refresh
                    }
                    Some(Err(untold)) => {
                        self.site.feed.complain(chain(&untold));
                        let wait = pause;
                        pause = (pause * 2).min(refresh);
                        wait
                    }
                };
                next_ask = Instant::now() + wait;
            }
            let known = cloud.clone().unwrap_or_else(|| self.remembered(&identity));
            self.tell(identity, known, &root_filesystem);
            self.site.feed.running();
            let looked = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = routes.changed() => changed.map_err(broken)?,
                () = sleep_until(next_ask), if provider.is_some() => {}
            }
            // Many changes are one.
            if stop.run_until_cancelled(sleep_until(looked + BETWEEN_LOOKS)).await.is_none() {
                return Ok(());
            }
            routes.forget().map_err(broken)?;
        }
    }
}

/// The cluster of the ECS task that the recorder runs in, where it runs in one.
async fn ecs_cluster() -> Option<String> {
    let uri = std::env::var("ECS_CONTAINER_METADATA_URI_V4").ok()?;
    let task = Service { base: uri }.json("/task", ("accept", "application/json")).await.ok()?;
    Some(task.get("Cluster")?.as_str()?.rsplit('/').next()?.to_owned())
}

/// Reads files without holding up the other sources; what panics tells nothing.
async fn blocking<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// What fuzzers call.
pub mod fuzzing {
    /// An answer of a metadata service.
    pub fn decode(bytes: &[u8]) {
        super::metadata::decode(bytes);
    }
}
