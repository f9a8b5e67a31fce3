//! containerd: its events, of all namespaces, and what it has.
//!
//! containerd keeps no events: whoever was not there missed them. So each connection begins with a snapshot of what exists, and what
//! is only known for a moment is fetched in that moment: labels, spec and image while the container is created, process, namespaces and
//! addresses while its first process waits for its exec.

mod decode;
mod images;
mod inventory;
mod naming;
mod snapshot;
mod spec;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::{SubscribeRequest, events_client::EventsClient, version_client::VersionClient},
    types::Envelope,
};
use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, Report, Witness},
    now,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, transport::Channel};

pub use decode::{ImageChange, Told, Undecodable, decode};
pub(crate) use naming::MAX_ID;
pub use naming::Naming;
use naming::docker_beside;
pub(crate) use spec::{MAX_SPEC, Spec};

use self::{
    inventory::{Inventory, answer},
    naming::MOBY,
};
use crate::{
    disk,
    docker::Keeper,
    error::{SourceError, chain},
    hearing::{Heard, Hearing},
    parked::Parking,
    sight::Sight,
    supervise::{Site, Source},
};

/// An event waits this long for the details that come with it; they are sent after it then.
pub(crate) const DETAILS_WITHIN: Duration = Duration::from_millis(200);
/// Questions under way. More at once come from a storm, whose events go without details.
pub(crate) const MAX_LOOKUPS: usize = 256;

/// Follows one containerd.
#[derive(Debug)]
pub(crate) struct Containerd {
    site: Site,
    naming: Naming,
    sight: Sight,
}

impl Containerd {
    pub(crate) fn new(site: Site) -> Self {
        let docker = site.socket().and_then(|socket| docker_beside(&socket, &site.config.docker)).map(Arc::from);
        let naming = Naming::new(Arc::clone(&site.endpoint), docker);
        let sight = Sight::new(&site);
        Self { site, naming, sight }
    }
}

impl Source for Containerd {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let channel = self.site.connect().await?;
        let mut session = Session::new(self, channel);
        let ended = session.run(&stop).await;
        session.finish().await;
        ended
    }
}

/// One connection.
struct Session<'a> {
    source: &'a mut Containerd,
    inventory: Inventory,
    channel: Channel,
    teller: Teller,
    parking: Parking,
    keeper: Keeper,
    /// Each yields the container that it found out nothing about.
    lookups: JoinSet<Option<ContainerKey>>,
    /// Containers that containerd could not tell of; their bundles can, once they exist.
    unknown: HashSet<ContainerKey>,
}

impl<'a> Session<'a> {
    fn new(source: &'a mut Containerd, channel: Channel) -> Self {
        let teller = Teller { site: source.site.clone() };
        let inventory = Inventory::new(channel.clone());
        let keeper = Keeper::of(source.site.socket().as_deref());
        Self { source, inventory, channel, teller, parking: Parking::new(keeper), keeper, lookups: JoinSet::new(), unknown: HashSet::new() }
    }

    async fn run(&mut self, stop: &CancellationToken) -> Result<(), SourceError> {
        let mut events = Hearing::begin(&self.source.site, subscribe(self.channel.clone(), decode::FILTER));
        if let Some(began) = stop.run_until_cancelled(self.begin()).await {
            began?;
        }
        let ended = loop {
            tokio::select! {
                heard = events.next(stop) => match heard {
                    Ok(Heard::Event(envelope)) => self.hear(&envelope).await,
                    Ok(Heard::Loss(since)) => if let Err(error) = self.survey(Some(since)).await { break Err(error) },
                    Ok(Heard::Refused(status)) => break Err(self.source.site.broken("events", status)),
                    Ok(Heard::Stop) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Some(lookup) = self.lookups.join_next() => {
                    self.unknown.extend(lookup.ok().flatten().filter(|_| self.unknown.len() < MAX_LOOKUPS));
                }
            }
        };
        self.source.sight.lose();
        ended
    }

    /// Sees what there is. containerd answers a subscription only with its first event; but it reads a connection's requests in order, so that
    /// with the answer to one that was sent later it must have begun.
    async fn begin(&mut self) -> Result<(), SourceError> {
        let mut version = VersionClient::new(self.channel.clone());
        let version = answer(version.version(Request::new(()))).await.map_err(|status| self.source.site.broken("the version", status))?;
        tracing::info!(endpoint = &*self.source.site.endpoint, version = version.version, "following containerd");
        self.source.site.feed.running();
        self.survey(self.source.sight.blind_since()).await?;
        let Containerd { site, sight, .. } = &mut *self.source;
        sight.regain(site, "containerd keeps no events: of what came and went meanwhile nothing is known");
        Ok(())
    }

    /// Reports the containers of all namespaces, of those too that vanished with all that was known in them.
    async fn survey(&mut self, blind_since: Option<Nanos>) -> Result<(), SourceError> {
        let present = self.inventory.namespaces().await.map_err(|status| self.source.site.broken("the namespaces", status))?;
        for namespace in &present {
            self.look(namespace, blind_since).await.map_err(|status| self.source.site.broken("the containers", status))?;
        }
        let site = &self.source.site;
        for namespace in site.recorder.directory().namespaces(&site.endpoint) {
            if !present.iter().any(|name| **name == *namespace) {
                self.report(namespace, now(), blind_since, Vec::new());
            }
        }
        Ok(())
    }

    async fn hear(&mut self, envelope: &Envelope) {
        match decode(&self.source.naming, envelope) {
            Ok(Told::Event(event)) => self.event(event).await,
            Ok(Told::Parked { key, pid, bundle }) => self.parked(key, pid, bundle).await,
            Ok(Told::Image { namespace, name, change, time_ns }) => {
                let (inventory, site) = (self.inventory.clone(), self.source.site.clone());
                self.look_up(async move {
                    if let Some(event) = images::tell(&inventory, &site.endpoint, namespace, name, change, time_ns).await {
                        site.recorder.sinks().images.push(&site.feed, event);
                    }
                    None
                });
            }
            Ok(Told::Nothing) => {}
            Err(error) => self.source.site.feed.reject(chain(&error)),
        }
    }

    async fn event(&mut self, mut event: Box<ContainerEvent>) {
        match event.action {
            Action::Create | Action::Update if self.lookups.len() < MAX_LOOKUPS && &*event.key.runtime_namespace != MOBY => {
                let (inventory, teller) = (self.inventory.clone(), self.teller.clone());
                self.look_up(teller.introduce(inventory, event));
                return;
            }
            Action::Start => self.parking.start(&mut event).await,
            Action::Die | Action::Destroy => {
                self.parking.leave(&event.key);
                self.parking.doubt(&mut event);
            }
            _ => self.parking.doubt(&mut event),
        }
        // Docker is about to tell the same, with more; while it is down, nobody is.
        event.settled = &*event.key.runtime_namespace != MOBY;
        self.teller.tell(event);
    }

    async fn parked(&mut self, key: ContainerKey, pid: i64, bundle: PathBuf) {
        if self.unknown.remove(&key) && self.keeper == Keeper::Root {
            let (teller, key) = (self.teller.clone(), key.clone());
            self.look_up(async move {
                match tokio::task::spawn_blocking(move || disk::read_bundle(&bundle)).await {
                    Ok(Ok(details)) => teller.add(key, details),
                    Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the bundle"),
                    Err(_) => {}
                }
                None
            });
        }
        self.parking.park(key, pid).await;
    }

    fn look_up(&mut self, lookup: impl Future<Output = Option<ContainerKey>> + Send + 'static) {
        if self.lookups.len() < MAX_LOOKUPS {
            self.lookups.spawn(lookup);
        } else {
            self.source.site.feed.complain("too many questions to containerd at once; some events go without details");
        }
    }

    /// Waits for the events that wait for details.
    async fn finish(mut self) {
        let rest = async { while self.lookups.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DETAILS_WITHIN, rest).await;
    }
}

/// The event stream.
pub(crate) async fn subscribe(channel: Channel, filter: &'static str) -> Result<Streaming<Envelope>, Status> {
    let request = SubscribeRequest { filters: vec![filter.into()] };
    Ok(EventsClient::new(channel).subscribe(request).await?.into_inner())
}

/// Hands reports to the recorder.
#[derive(Clone, Debug)]
struct Teller {
    site: Site,
}

impl Teller {
    fn tell(&self, event: Box<ContainerEvent>) {
        // Where the next connection knows it was blind from, should this process end.
        let cursor = event.time_ns.to_string();
        self.site.recorder.sinks().containers.push_at(&self.site.feed, Report::Event(event), cursor);
    }

    fn add(&self, key: ContainerKey, details: mayfly_history::container::Details) {
        let report = Report::Details { key, witness: Witness::Containerd, details: Box::new(details) };
        self.site.recorder.sinks().containers.push(&self.site.feed, report);
    }

    /// Tells an event together with the details of its container, if they come in time. Yields its key if they never come.
    async fn introduce(self, inventory: Inventory, mut event: Box<ContainerEvent>) -> Option<ContainerKey> {
        let key = event.key.clone();
        let ContainerKey { container_id, runtime_namespace, .. } = key.clone();
        let mut asked = Box::pin(inventory.container(&runtime_namespace, &container_id));
        event.settled = true;
        match tokio::time::timeout(DETAILS_WITHIN, &mut asked).await {
            Ok(Ok(details)) => {
                event.details = details;
                self.tell(event);
                None
            }
            Ok(Err(status)) => {
                tracing::debug!(container = &*key.container_id, %status, "containerd does not tell of the container");
                self.tell(event);
                Some(key)
            }
            Err(_) => {
                self.tell(event);
                match asked.await {
                    Ok(details) => self.add(key, details),
                    Err(_) => return Some(key),
                }
                None
            }
        }
    }
}
