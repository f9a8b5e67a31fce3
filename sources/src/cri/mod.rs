//! The Kubernetes Container Runtime Interface: pods, and what their runtime says of their containers.
//!
//! CRI-O tells by `GetContainerEvents`. That call of containerd is not used: 1.6 has none, and 1.7 gives each event to one
//! caller alone, so that kubelet would miss what is read here. But containerd's own events tell the same and more; each of Kubernetes'
//! is taken as the moment to ask the CRI server for what only it knows.

mod client;
mod decode;
mod details;
mod messages;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, Details, Report, Runtime, Snapshot, State, Witness},
    now,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

pub use decode::{Nonsense, decode};

use self::{
    client::Client,
    details::{listed_sandbox, of_container, of_listed, of_sandbox},
};
use crate::{
    containerd::{self, DETAILS_WITHIN, MAX_ID, MAX_LOOKUPS, Naming, Told},
    docker::Keeper,
    error::{SourceError, chain},
    hearing::{Heard, Hearing},
    parked::Parking,
    sight::Sight,
    supervise::{Site, Source},
};

/// Where Kubernetes keeps its containers in containerd.
const K8S: &str = "k8s.io";
/// The moments at which there is something to ask.
const MOMENTS: &str = r#"namespace=="k8s.io",topic~="^/tasks/(create|start|exit)$""#;
/// The server notes what happened a little after containerd told of it: asked again after these pauses while it knows nothing yet.
const ASK_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300)];

/// Follows one CRI server.
#[derive(Debug)]
pub(crate) struct Cri {
    site: Site,
    sight: Sight,
}

impl Cri {
    pub(crate) fn new(site: Site) -> Self {
        Self { sight: Sight::new(&site), site }
    }

    /// Waits for a server that can be followed to take this one's place.
    async fn give_up(&self, why: &str, hint: &str, stop: &CancellationToken) -> Result<(), SourceError> {
        self.site.feed.disabled(why, hint);
        stop.cancelled().await;
        Ok(())
    }
}

impl Source for Cri {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let channel = self.site.connect().await?;
        let version = match Client::new(channel.clone()).version().await {
            Err(status) if status.code() == Code::Unimplemented => {
                let hint = "only Kubernetes needs it; where containerd runs without, its containers are recorded by the source containerd";
                return self.give_up("no CRI server (runtime.v1) listens here", hint, &stop).await;
            }
            answer => answer.map_err(|status| self.site.broken("the version", status))?,
        };
        tracing::info!(endpoint = &*self.site.endpoint, runtime = version.runtime_name, version = version.runtime_version, "following CRI");
        let (runtime, namespace) = match version.runtime_name.as_str() {
            "containerd" => (Runtime::Containerd, K8S),
            "docker" => return self.give_up("it stands for a Docker", "the source docker records its containers", &stop).await,
            "cri-o" => (Runtime::CriO, ""),
            _ => (Runtime::Unknown, ""),
        };
        let server = Server { site: self.site.clone(), client: Client::new(channel.clone()), runtime, namespace: namespace.into() };
        let ended = if runtime == Runtime::Containerd {
            self.ask_at_events(server, channel, &stop).await
        } else {
            self.follow_events(server, &stop).await
        };
        self.sight.lose();
        ended
    }
}

impl Cri {
    /// Records the server's own events.
    async fn follow_events(&mut self, server: Server, stop: &CancellationToken) -> Result<(), SourceError> {
        let client = server.client.clone();
        let mut events = Hearing::begin(&self.site, async move { client.events().await });
        self.begin(&server, stop).await?;
        let mut parking = Parking::new(Keeper::of(server.site.socket().as_deref()));
        loop {
            match events.next(stop).await? {
                Heard::Event(said) => match decode::read(&server.site.endpoint, server.runtime, said) {
                    Ok(event) => server.tell(event, &mut parking).await,
                    Err(error) => server.site.feed.reject(chain(&error)),
                },
                Heard::Loss(since) => self.look(&server, Some(since), stop).await?,
                Heard::Refused(status) => {
                    let hint = "enable its container events (CRI-O: `enable_pod_events = true`)";
                    return self.give_up(status.message(), hint, stop).await;
                }
                Heard::Stop => return Ok(()),
            }
        }
    }

    /// Asks the server whenever containerd says that something happened to a container of Kubernetes.
    async fn ask_at_events(&mut self, server: Server, channel: Channel, stop: &CancellationToken) -> Result<(), SourceError> {
        let mut events = Hearing::begin(&self.site, containerd::subscribe(channel, MOMENTS));
        self.begin(&server, stop).await?;
        let naming = Naming::new(Arc::clone(&self.site.endpoint), None);
        let mut questions = JoinSet::new();
        loop {
            let heard = events.next(stop).await?;
            while questions.try_join_next().is_some() {}
            let moment = match heard {
                Heard::Event(envelope) => containerd::decode(&naming, &envelope),
                Heard::Loss(since) => {
                    self.look(&server, Some(since), stop).await?;
                    continue;
                }
                Heard::Refused(status) => return Err(self.site.broken("events", status)),
                Heard::Stop => return Ok(()),
            };
            let (key, wanted) = match moment {
                Ok(Told::Parked { key, .. }) => (key, State::Created),
                Ok(Told::Event(event)) if event.action == Action::Start => (event.key, State::Running),
                Ok(Told::Event(event)) if event.action == Action::Die => (event.key, State::Exited),
                // What makes no sense is counted where it is recorded.
                _ => continue,
            };
            if questions.len() < MAX_LOOKUPS {
                questions.spawn(server.clone().ask(key, wanted));
            }
        }
    }

    /// Tells of all containers and pods. The list is asked for after the events, and with another answer in between, so that it misses nothing.
    async fn begin(&mut self, server: &Server, stop: &CancellationToken) -> Result<(), SourceError> {
        match stop.run_until_cancelled(server.client.version()).await {
            None => return Ok(()),
            Some(answer) => drop(answer.map_err(|status| self.site.broken("the version", status))?),
        }
        self.site.feed.running();
        self.look(server, self.sight.blind_since(), stop).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        self.sight.regain(&self.site, "CRI servers keep no events: of what came and went meanwhile nothing is known");
        Ok(())
    }

    /// Tells of all that exists.
    async fn look(&self, server: &Server, blind_since: Option<Nanos>, stop: &CancellationToken) -> Result<(), SourceError> {
        let looked = stop.run_until_cancelled(server.look(blind_since)).await.unwrap_or(Ok(()));
        looked.map_err(|status| self.site.broken("the containers", status))
    }
}

/// One server, and how its containers are recorded.
#[derive(Clone, Debug)]
struct Server {
    site: Site,
    client: Client,
    runtime: Runtime,
    namespace: Arc<str>,
}

impl Server {
    fn key(&self, id: &str) -> Option<ContainerKey> {
        let known = !id.is_empty() && id.len() <= MAX_ID;
        let (runtime_namespace, endpoint) = (Arc::clone(&self.namespace), Arc::clone(&self.site.endpoint));
        known.then(|| ContainerKey { container_id: id.into(), runtime_namespace, endpoint })
    }

    /// Reports everything that the server has. What it lists is there, even if its status cannot be had.
    async fn look(&self, blind_since: Option<Nanos>) -> Result<(), Status> {
        let taken_ns = now();
        let mut containers = Vec::new();
        let mut pods = HashMap::new();
        for pod in self.client.sandboxes().await?.items {
            let Some(key) = self.key(&pod.id) else { continue };
            let answer = match self.client.sandbox(&pod.id).await {
                Err(status) if status.code() == Code::NotFound => continue,
                answer => self.shown(&pod.id, answer).unwrap_or_default(),
            };
            let id = pod.id.clone();
            let status = answer.status.unwrap_or_else(|| listed_sandbox(pod));
            let (state, details) = of_sandbox(self.runtime, &status, &answer.info);
            containers.push((key, state, details));
            pods.insert(id, status);
        }
        for container in self.client.containers().await?.containers {
            let Some(key) = self.key(&container.id) else { continue };
            let answer = match self.client.container(&container.id).await {
                Err(status) if status.code() == Code::NotFound => continue,
                answer => self.shown(&container.id, answer).unwrap_or_default(),
            };
            let pod = pods.get(&container.pod_sandbox_id);
            let (state, details) = match answer.status {
                Some(status) => of_container(self.runtime, status, &answer.info, pod),
                None => of_listed(self.runtime, container, pod),
            };
            containers.push((key, state, details));
        }
        let endpoint = Arc::clone(&self.site.endpoint);
        let snapshot =
            Snapshot { endpoint, runtime_namespace: Arc::clone(&self.namespace), witness: Witness::Cri, taken_ns, blind_since, containers };
        self.site.recorder.sinks().containers.push(&self.site.feed, Report::Snapshot(Box::new(snapshot)));
        Ok(())
    }

    /// A status, where the server tells it.
    fn shown<A>(&self, id: &str, answer: Result<A, Status>) -> Option<A> {
        let tell = |status: &Status| self.site.feed.complain(format!("no status of {id}, which is listed: {}", status.message()));
        answer.inspect_err(tell).ok()
    }

    /// Tells an event of the server's own, with what more can be found out at once.
    async fn tell(&self, mut event: Box<ContainerEvent>, parking: &mut Parking) {
        let id = Arc::clone(&event.key.container_id);
        if matches!(event.action, Action::Create | Action::Start)
            && let Ok(Some((_, mut details))) = tokio::time::timeout(DETAILS_WITHIN, self.status(&id)).await
        {
            let told = std::mem::take(&mut event.details);
            let pid = details.run.pid.take();
            if let Some(pid) = pid.filter(|_| event.action == Action::Create || !parking.holds(&event.key)) {
                parking.park(event.key.clone(), pid).await;
            }
            details.sandbox_id = details.sandbox_id.or(told.sandbox_id);
            Arc::make_mut(&mut details.labels).extend(Arc::unwrap_or_clone(told.labels));
            details.run = told.run;
            event.details = details;
            if event.action == Action::Start {
                event.details.run.pid = pid;
            }
        }
        match event.action {
            Action::Start => parking.start(&mut event).await,
            Action::Die | Action::Destroy => parking.leave(&event.key),
            _ => {}
        }
        if event.action != Action::Start {
            parking.doubt(&mut event);
        }
        let cursor = event.time_ns.to_string();
        self.site.recorder.sinks().containers.push_at(&self.site.feed, Report::Event(event), cursor);
    }

    /// Asks for a container of containerd's until the server knows that it is so far.
    async fn ask(self, key: ContainerKey, wanted: State) {
        let mut last = None;
        for pause in ASK_AFTER {
            tokio::time::sleep(pause).await;
            last = self.status(&key.container_id).await.or(last);
            if last.as_ref().is_some_and(|(state, _)| *state >= wanted) {
                break;
            }
        }
        let Some((_, details)) = last else { return };
        let report = Report::Details { key, witness: Witness::Cri, details: Box::new(details) };
        self.site.recorder.sinks().containers.push_at(&self.site.feed, report, now().to_string());
    }

    /// What the server knows of a container, or of the pod's sandbox that is one.
    async fn status(&self, id: &str) -> Option<(State, Details)> {
        match self.client.container(id).await {
            Ok(answer) => Some(of_container(self.runtime, answer.status?, &answer.info, None)),
            Err(status) if status.code() == Code::NotFound => {
                let answer = self.client.sandbox(id).await.ok()?;
                Some(of_sandbox(self.runtime, &answer.status?, &answer.info))
            }
            Err(status) => {
                tracing::debug!(container = id, %status, "the CRI server does not tell of the container");
                None
            }
        }
    }
}
