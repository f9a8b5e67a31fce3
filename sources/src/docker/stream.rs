//! One connection to a daemon: its events, and the questions that they raise.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, Details, Report, Runtime, Snapshot, Witness},
    feed::cause,
    image::ImageEvent,
    now,
};
use serde::Deserialize;

use super::{
    Docker,
    api::{Api, Line, Lines},
    decode::{self, ContainerTold, ImageTold, Told},
    image::Image,
    jobs::{Daemon, Done, Examined, Files, Job, Jobs},
    proof::Keeper,
    reconcile,
};
use crate::error::{SourceError, chain};

/// How far before the last event a stream resumes: events are not strictly in order of their time, Podman's least.
const DOCKER_OVERLAP: Nanos = 1_000_000_000;
const PODMAN_OVERLAP: Nanos = 5_000_000_000;
/// `{"type":{"container":true,"image":true,"network":true}}`
const FILTERS: &str = "%7B%22type%22%3A%7B%22container%22%3Atrue%2C%22image%22%3Atrue%2C%22network%22%3Atrue%7D%7D";

pub(super) struct Session<'s> {
    source: &'s mut Docker,
    daemon: Daemon,
    jobs: Jobs,
    namespace: Arc<str>,
    /// The list of containers that is asked for.
    listing: Option<Listing>,
    resumed: Resumed,
    /// The time before this connection is accounted for.
    accounted: bool,
    events: u64,
}

/// A list of all containers, on its way.
#[derive(Debug)]
struct Listing {
    asked_ns: Nanos,
    /// Since when events may be missing.
    blind_since: Option<Nanos>,
}

/// Where the stream was taken up again.
#[derive(Debug)]
struct Resumed {
    /// The last event that was seen before; `None` at the first look.
    after: Option<Nanos>,
    /// Since when nothing was seen.
    blind_since: Option<Nanos>,
    /// The stream broke while this process watched it: the gap is open, and is this source's to close.
    own_gap: bool,
    /// When the stream was opened.
    at: Nanos,
    /// The stream begins before that; what happened before is replayed. Else all of it is live, whatever the daemon's clock says.
    replays: bool,
    /// An event that was seen before came again: nothing is missing between.
    reached_back: bool,
    oldest_replayed: Option<Nanos>,
    recovered: i64,
}

impl<'s> Session<'s> {
    /// Connects, subscribes from where the last session or recorder ended, and asks for all containers.
    pub(super) async fn open(source: &'s mut Docker) -> Result<(Self, Lines), SourceError> {
        let mut api = Api::new(&source.site.endpoint)?;
        let is_podman = api.negotiate().await?;
        let (runtime, namespace, overlap) =
            if is_podman { (Runtime::Podman, "", PODMAN_OVERLAP) } else { (Runtime::Docker, "moby", DOCKER_OVERLAP) };
        let keeper = Keeper::of(source.site.socket().as_deref());
        let root = if keeper == Keeper::Root && !is_podman { root_dir(&api).await } else { None };

        let site = &source.site;
        let stored = site.recorder.cursor(&site.feed).and_then(|cursor| cursor.parse().ok());
        let blind_since = if source.listed { source.blind_since } else { site.recorder.blind_since().or(stored) };
        let own_gap = source.listed && blind_since.is_some();
        let at = now();
        // A clock that stepped back must not make the resumed stream begin in the future.
        let stored = source.position.or(stored).map(|stored: Nanos| stored.min(at));
        let since = stored.or(blind_since).map(|resumed| resumed.min(at) - overlap);
        let path = match since {
            Some(since) => {
                let (seconds, nanos) = (since.div_euclid(1_000_000_000), since.rem_euclid(1_000_000_000));
                format!("/events?since={seconds}.{nanos:09}&filters={FILTERS}")
            }
            None => format!("/events?filters={FILTERS}"),
        };
        let lines = api.lines(&path).await?;
        source.position = stored;

        let daemon = Daemon::new(api, runtime, keeper, root, source.disk.clone());
        let resumed = Resumed {
            after: stored,
            blind_since,
            own_gap,
            at,
            replays: since.is_some(),
            reached_back: false,
            oldest_replayed: None,
            recovered: 0,
        };
        let jobs = Jobs::new(daemon.clone());
        let mut session = Self { source, daemon, jobs, namespace: namespace.into(), listing: None, resumed, accounted: false, events: 0 };
        let asked = session.jobs.ask(Job::Images);
        debug_assert!(asked, "nothing else was asked yet");
        session.list(blind_since);
        session.source.site.feed.running();
        Ok((session, lines))
    }

    /// Reads events and answers until the stream breaks. Events come first: the daemon silently drops a subscriber's events when it lags.
    pub(super) async fn run(mut self, mut lines: Lines) -> Result<(), SourceError> {
        let feed = self.source.site.feed.clone();
        loop {
            tokio::select! {
                biased;
                line = lines.next() => match line {
                    Ok(Some(Line::Text(line))) => self.on_line(&line),
                    Ok(Some(Line::TooLong)) => self.source.site.feed.reject("an event longer than 4 MiB was passed over"),
                    Ok(None) => {
                        return Err(SourceError::Closed { endpoint: self.source.site.endpoint.to_string(), events: self.events });
                    }
                    Err(error) => return Err(self.daemon.api.broken("/events", error)),
                },
                done = self.jobs.next() => self.on_done(done)?,
                // What this stream told was lost on its way to the store.
                since = feed.resync_wanted(), if self.listing.is_none() => self.list(Some(since)),
            }
        }
    }

    /// Asks for all containers.
    fn list(&mut self, blind_since: Option<Nanos>) {
        self.listing = Some(Listing { asked_ns: now(), blind_since });
        let (endpoint, namespace) = (Arc::clone(&self.source.site.endpoint), Arc::clone(&self.namespace));
        let key = move |id: &str| ContainerKey {
            container_id: id.into(),
            runtime_namespace: Arc::clone(&namespace),
            endpoint: Arc::clone(&endpoint),
        };
        self.jobs.list(reconcile::list(self.daemon.clone(), key));
    }

    fn on_line(&mut self, line: &[u8]) {
        match decode::decode(line, self.daemon.runtime, &mut self.source.labels) {
            Ok(Told::Container(told)) => self.on_container(told),
            Ok(Told::Image(told)) => self.on_image(told),
            Ok(Told::Other) => {}
            Err(error) => self.source.site.feed.reject(chain(&error)),
        }
    }

    /// Whether an event is replayed; notes how far back the replay reaches.
    fn replayed(&mut self, time_ns: Nanos) -> bool {
        let resumed = &mut self.resumed;
        if !resumed.replays || time_ns >= resumed.at {
            return false;
        }
        resumed.oldest_replayed = Some(resumed.oldest_replayed.map_or(time_ns, |oldest| oldest.min(time_ns)));
        resumed.reached_back |= resumed.after.is_some_and(|after| time_ns <= after);
        true
    }

    fn on_container(&mut self, told: ContainerTold) {
        let replayed = self.replayed(told.time_ns);
        let is_podman = self.daemon.runtime == Runtime::Podman;
        let mut details =
            Details { runtime: self.daemon.runtime, name: told.name, image: told.image, labels: told.labels.into(), ..Details::default() };
        details.run.exit_code = told.exit_code;
        details.run.signal = told.signal;
        details.run.oom_killed = (told.action == Some(Action::Oom)).then_some(true);
        let is_new = told.action == Some(Action::Create);
        let mut asked = true;
        let files = match told.action {
            // Of a replayed container the name may be another image's by now, so its own id is asked for first.
            Some(Action::Create) if replayed => Some(Files::Nothing),
            Some(Action::Create) => {
                asked = self.name_image(&told.id, &mut details);
                Some(Files::Created)
            }
            Some(Action::Start) if !replayed => Some(Files::Started),
            // Docker answers an inspect from here on only when the start is over, with pid and addresses.
            Some(Action::NetworkConnect) if !replayed => Some(Files::Nothing),
            Some(Action::Rename | Action::Update) => Some(Files::Nothing),
            Some(Action::Die) if told.exit_code.is_none() => Some(Files::Nothing),
            None if is_podman && !replayed => Some(Files::Nothing),
            _ => None,
        };
        if let Some(files) = files {
            let created_from = details.image.clone().filter(|_| is_new);
            asked &= self.jobs.ask(Job::Container { id: told.id.clone(), files, created_from });
        }
        if !asked {
            self.source.site.feed.complain("too many containers at once: some are recorded without details");
        }
        let Some(action) = told.action else { return };
        self.events += 1;
        self.resumed.recovered += i64::from(replayed);
        let event = ContainerEvent {
            time_ns: told.time_ns,
            action,
            source: witness(self.daemon.runtime),
            recovered: replayed,
            settled: !self.jobs.concern(&told.id),
            key: self.key(&told.id),
            exec_id: told.exec_id,
            lifetime_ms: None,
            details,
            attributes: told.attributes,
        };
        let position = self.source.position.map_or(event.time_ns, |position| position.max(event.time_ns));
        self.source.position = Some(position);
        let site = &self.source.site;
        site.recorder.sinks().containers.push_at(&site.feed, Report::Event(Box::new(event)), position.to_string());
    }

    /// Adds the id and digest of the image of a new container, which its name tells; asks where nothing is known of it yet. False if it cannot
    /// even be asked.
    fn name_image(&mut self, id: &str, details: &mut Details) -> bool {
        let Some(name) = &details.image else { return true };
        let Some(image) = self.daemon.known_image(name) else { return self.jobs.ask_image(name, id) };
        details.image_digest = image.digest(name);
        details.image_id = image.id;
        true
    }

    fn on_image(&mut self, told: ImageTold) {
        self.replayed(told.time_ns);
        self.events += 1;
        if self.daemon.forget_image(&told) && !self.jobs.ask(Job::Images) {
            self.source.site.feed.complain("too many images at once: their names are asked for later");
        }
        if !self.jobs.ask_told(told.clone()) {
            self.source.site.feed.complain("too many images at once: some are recorded without details");
            self.tell_image(told, &Image::default());
        }
    }

    fn tell_image(&self, told: ImageTold, found: &Image) {
        let site = &self.source.site;
        let event = ImageEvent {
            time_ns: told.time_ns,
            action: told.action,
            runtime: self.daemon.runtime,
            source: witness(self.daemon.runtime),
            image_digest: found.digest(told.name.as_deref().unwrap_or_default()),
            image: told.name,
            image_id: told.id.or_else(|| found.id.clone()),
            runtime_namespace: self.namespace.to_string(),
            endpoint: site.endpoint.to_string(),
        };
        site.recorder.sinks().images.push(&site.feed, event);
    }

    fn on_done(&mut self, done: Done) -> Result<(), SourceError> {
        match done {
            Done::Container { id, examined: Ok(Some(examined)) } => {
                self.source.labels.learn(&id, examined.labels.iter());
                let report = Report::Details { key: self.key(&id), witness: witness(self.daemon.runtime), details: examined.details };
                let site = &self.source.site;
                site.recorder.sinks().containers.push(&site.feed, report);
            }
            Done::Container { examined: Ok(None), .. } => {}
            Done::Container { examined: Err(error), .. } => self.source.site.feed.complain(chain(&error)),
            Done::Reference { reference, containers, found: Ok(image) } => {
                for id in containers {
                    let details = Box::new(image.details(self.daemon.runtime, &reference));
                    let report = Report::Details { key: self.key(&id), witness: witness(self.daemon.runtime), details };
                    let site = &self.source.site;
                    site.recorder.sinks().containers.push(&site.feed, report);
                }
            }
            // It is gone already; its containers tell its id.
            Done::Reference { found: Err(SourceError::Refused { status: 404, .. }), .. } => {}
            Done::Reference { found: Err(error), .. } | Done::Images(Err(error)) => self.source.site.feed.complain(chain(&error)),
            Done::Images(Ok(())) => {}
            Done::Image(told, found) => self.tell_image(told, &found),
            Done::Listed(listed) => self.on_list(listed?),
        }
        Ok(())
    }

    fn on_list(&mut self, listed: Vec<(ContainerKey, Examined)>) {
        let Some(Listing { asked_ns, blind_since }) = self.listing.take() else { return };
        for (key, examined) in &listed {
            self.source.labels.learn(&key.container_id, examined.labels.iter());
        }
        let site = &self.source.site;
        let snapshot = Snapshot {
            endpoint: Arc::clone(&site.endpoint),
            runtime_namespace: Arc::clone(&self.namespace),
            witness: witness(self.daemon.runtime),
            taken_ns: asked_ns,
            blind_since,
            containers: listed.into_iter().map(|(key, examined)| (key, examined.state, *examined.details)).collect(),
        };
        site.recorder.sinks().containers.push(&site.feed, Report::Snapshot(Box::new(snapshot)));
        if !std::mem::replace(&mut self.accounted, true) {
            self.account();
        }
    }

    /// Reports the blind time that this connection ended, and what came back of it.
    fn account(&mut self) {
        let resumed = &self.resumed;
        let feed = &self.source.site.feed;
        let detail = match (resumed.after, resumed.oldest_replayed) {
            (None, _) => "no event was seen before; reconciled with the daemon's list of containers",
            (Some(_), _) if resumed.reached_back => "the daemon's backlog reaches back to the last event seen",
            (Some(_), None) => "the daemon kept no events of that time; reconciled with its list of containers",
            (Some(_), Some(_)) => {
                "the daemon's backlog begins after the last event seen: it restarted, or had more events than the 256 that it keeps; reconciled with its list of containers"
            }
        };
        if let (true, Some(from)) = (resumed.own_gap, resumed.blind_since) {
            feed.blind(cause::DAEMON_DOWN, from, Some(resumed.at), resumed.recovered, detail);
        } else if let (false, Some(after)) = (resumed.reached_back, resumed.after) {
            let cause = if resumed.oldest_replayed.is_some() { cause::STREAM_LAGGED } else { cause::DAEMON_DOWN };
            feed.blind(cause, after, Some(resumed.oldest_replayed.unwrap_or(resumed.at)), resumed.recovered, detail);
        }
        self.source.blind_since = None;
        self.source.listed = true;
    }

    fn key(&self, id: &str) -> ContainerKey {
        ContainerKey {
            container_id: id.into(),
            runtime_namespace: Arc::clone(&self.namespace),
            endpoint: Arc::clone(&self.source.site.endpoint),
        }
    }
}

impl Drop for Session<'_> {
    /// The stream resumes after the events of images that wait for an answer: without it they are told now, or never.
    fn drop(&mut self) {
        for told in self.jobs.unanswered() {
            self.tell_image(told, &Image::default());
        }
    }
}

const fn witness(runtime: Runtime) -> Witness {
    match runtime {
        Runtime::Podman => Witness::Podman,
        _ => Witness::Docker,
    }
}

/// Docker's root directory, as it says.
async fn root_dir(api: &Api) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "DockerRootDir")]
        root: PathBuf,
    }
    let info: Info = api.get("/info", Duration::from_secs(10)).await.ok()?;
    Some(info.root).filter(|root| root.is_absolute())
}
