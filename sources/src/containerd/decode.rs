//! What containerd's events say. Every byte of them is somebody else's: nothing here trusts a length, a name or a number.

use std::path::PathBuf;

use containerd_client::{
    events::{
        ContainerCreate, ContainerDelete, ContainerUpdate, TaskCreate, TaskExecAdded, TaskExecStarted, TaskExit, TaskOom, TaskPaused,
        TaskResumed, TaskStart,
    },
    types::Envelope,
};
use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, Details, Witness},
    now,
};
use prost::Message;
use prost_types::Timestamp;

use super::naming::{MAX_ID, MOBY, Naming};

/// The topics that are asked for. The others (snapshots, content, leases) are many and tell nothing of containers.
pub(super) const FILTER: &str = r#"topic~="^/(containers|tasks|images)/""#;

/// What one envelope told.
#[derive(Debug)]
pub enum Told {
    /// Something happened to a container.
    Event(Box<ContainerEvent>),
    /// The first process exists, and waits before its exec: now its namespaces can be read at leisure.
    /// `bundle` is the directory of its OCI bundle.
    Parked { key: ContainerKey, pid: i64, bundle: PathBuf },
    /// An image of `namespace` appeared, changed or went.
    Image { namespace: String, name: String, change: ImageChange, time_ns: Nanos },
    /// Nothing that is recorded.
    Nothing,
}

/// What became of an image's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageChange {
    Created,
    Updated,
    Deleted,
}

/// An envelope that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    #[error("{topic}: no event in the envelope")]
    Empty { topic: String },
    #[error("{topic}: cannot decode the event")]
    Event {
        topic: String,
        #[source]
        reason: prost::DecodeError,
    },
    #[error("{topic}: the event is a {found:?}")]
    Foreign { topic: String, found: String },
    #[error("{topic}: no container id of 1 to {MAX_ID} bytes")]
    Id { topic: String },
}

// The image events are generated in a package of their own, whose module the client leaves out.
#[derive(Clone, PartialEq, Message)]
struct ImageName {
    #[prost(string, tag = "1")]
    name: String,
}

/// Decodes one envelope of the event stream.
pub fn decode(naming: &Naming, envelope: &Envelope) -> Result<Told, Undecodable> {
    let reader = Reader { naming, envelope, time_ns: envelope.timestamp.and_then(nanos).unwrap_or_else(now) };
    match envelope.topic.as_str() {
        // Docker makes and deletes the container in containerd at each start and stop: not what its users call create and destroy.
        "/containers/create" | "/containers/delete" if envelope.namespace == MOBY => Ok(Told::Nothing),
        "/containers/create" => reader.container_created(),
        "/containers/update" => reader.event(Action::Update, |e: &ContainerUpdate| &e.id),
        "/containers/delete" => reader.event(Action::Destroy, |e: &ContainerDelete| &e.id),
        "/tasks/create" => {
            let task: TaskCreate = reader.message()?;
            Ok(Told::Parked { key: reader.key(&task.container_id)?, pid: task.pid.into(), bundle: task.bundle.into() })
        }
        "/tasks/start" => reader.started(),
        "/tasks/exit" => reader.exited(),
        "/tasks/oom" => reader.out_of_memory(),
        "/tasks/paused" => reader.event(Action::Pause, |e: &TaskPaused| &e.container_id),
        "/tasks/resumed" => reader.event(Action::Unpause, |e: &TaskResumed| &e.container_id),
        "/tasks/exec-added" => {
            let exec: TaskExecAdded = reader.message()?;
            reader.exec(Action::ExecCreate, &exec.container_id, &exec.exec_id, &[])
        }
        "/tasks/exec-started" => {
            let exec: TaskExecStarted = reader.message()?;
            reader.exec(Action::ExecStart, &exec.container_id, &exec.exec_id, &[("pid", exec.pid)])
        }
        // Docker tells of its images itself.
        topic if topic.starts_with("/images/") && envelope.namespace != MOBY => reader.image(),
        _ => Ok(Told::Nothing),
    }
}

/// An RFC 3339 time's place in [`Nanos`]; `None` where it does not fit, or is nothing.
pub(super) fn nanos(time: Timestamp) -> Option<Nanos> {
    let nanos = time.seconds.checked_mul(1_000_000_000)?.checked_add(time.nanos.into())?;
    (nanos > 0).then_some(nanos)
}

struct Reader<'a> {
    naming: &'a Naming,
    envelope: &'a Envelope,
    time_ns: Nanos,
}

impl Reader<'_> {
    fn topic(&self) -> String {
        self.envelope.topic.chars().take(64).collect()
    }

    /// The event, which must be of the type that its topic promises: protobuf would decode another one to nonsense.
    fn message<M: Message + prost::Name + Default>(&self) -> Result<M, Undecodable> {
        let event = self.payload()?;
        if event.type_url.rsplit(['/', '.']).next() != Some(M::NAME) {
            return Err(Undecodable::Foreign { topic: self.topic(), found: event.type_url.chars().take(128).collect() });
        }
        M::decode(&*event.value).map_err(|reason| Undecodable::Event { topic: self.topic(), reason })
    }

    fn payload(&self) -> Result<&prost_types::Any, Undecodable> {
        self.envelope.event.as_ref().ok_or_else(|| Undecodable::Empty { topic: self.topic() })
    }

    fn key(&self, id: &str) -> Result<ContainerKey, Undecodable> {
        self.naming.key(&self.envelope.namespace, id).ok_or_else(|| Undecodable::Id { topic: self.topic() })
    }

    fn blank(&self, action: Action, id: &str) -> Result<Box<ContainerEvent>, Undecodable> {
        let details = Details { runtime: Naming::runtime(&self.envelope.namespace), ..Details::default() };
        Ok(Box::new(ContainerEvent {
            time_ns: self.time_ns,
            action,
            source: Witness::Containerd,
            recovered: false,
            key: self.key(id)?,
            exec_id: None,
            lifetime_ms: None,
            details,
            attributes: Default::default(),
            settled: true,
        }))
    }

    fn event<M: Message + prost::Name + Default>(&self, action: Action, id: fn(&M) -> &str) -> Result<Told, Undecodable> {
        let message = self.message()?;
        Ok(Told::Event(self.blank(action, id(&message))?))
    }

    fn container_created(&self) -> Result<Told, Undecodable> {
        let created: ContainerCreate = self.message()?;
        let mut event = self.blank(Action::Create, &created.id)?;
        event.details.created_ns = Some(self.time_ns);
        event.details.image = known(created.image);
        event.settled = false;
        Ok(Told::Event(event))
    }

    fn started(&self) -> Result<Told, Undecodable> {
        let task: TaskStart = self.message()?;
        let mut event = self.blank(Action::Start, &task.container_id)?;
        event.details.run.started_ns = Some(self.time_ns);
        event.details.run.pid = (task.pid != 0).then(|| task.pid.into());
        Ok(Told::Event(event))
    }

    fn out_of_memory(&self) -> Result<Told, Undecodable> {
        let oom: TaskOom = self.message()?;
        let mut event = self.blank(Action::Oom, &oom.container_id)?;
        event.details.run.oom_killed = Some(true);
        Ok(Told::Event(event))
    }

    /// The end of the first process, whose id is the container's, or of an exec.
    fn exited(&self) -> Result<Told, Undecodable> {
        let exit: TaskExit = self.message()?;
        if exit.id != exit.container_id && !exit.id.is_empty() {
            return self.exec(Action::ExecDie, &exit.container_id, &exit.id, &[("pid", exit.pid), ("exitCode", exit.exit_status)]);
        }
        let mut event = self.blank(Action::Die, &exit.container_id)?;
        event.details.run.finished_ns = Some(exit.exited_at.and_then(nanos).unwrap_or(self.time_ns));
        event.details.run.pid = (exit.pid != 0).then(|| exit.pid.into());
        event.details.run.exit_code = Some(exit.exit_status.into());
        Ok(Told::Event(event))
    }

    fn exec(&self, action: Action, id: &str, exec: &str, facts: &[(&str, u32)]) -> Result<Told, Undecodable> {
        if exec.is_empty() || exec.len() > MAX_ID {
            return Err(Undecodable::Id { topic: self.topic() });
        }
        let mut event = self.blank(action, id)?;
        event.exec_id = Some(exec.to_owned());
        event.attributes = facts.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        event.attributes.insert("execID".into(), exec.to_owned());
        Ok(Told::Event(event))
    }

    fn image(&self) -> Result<Told, Undecodable> {
        let change = match self.envelope.topic.as_str() {
            "/images/create" => ImageChange::Created,
            "/images/update" => ImageChange::Updated,
            "/images/delete" => ImageChange::Deleted,
            _ => return Ok(Told::Nothing),
        };
        let image = ImageName::decode(&*self.payload()?.value).map_err(|reason| Undecodable::Event { topic: self.topic(), reason })?;
        match known(image.name) {
            Some(name) => Ok(Told::Image { namespace: self.envelope.namespace.clone(), name, change, time_ns: self.time_ns }),
            None => Ok(Told::Nothing),
        }
    }
}

/// A text that says something.
pub(super) fn known(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelopes(hex: &str) -> Vec<Envelope> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let lines = hex.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| Envelope::decode(&*line.as_bytes().chunks(2).map(byte).collect::<Vec<_>>()).unwrap()).collect()
    }

    fn run() -> Vec<Envelope> {
        envelopes(include_str!("fixtures/run.hex"))
    }

    fn naming() -> Naming {
        Naming::new("unix:///run/containerd/containerd.sock", Some("unix:///run/docker.sock".into()))
    }

    fn told(hex: &str) -> Vec<Told> {
        envelopes(hex).iter().map(|envelope| decode(&naming(), envelope).unwrap()).collect()
    }

    fn events(told: &[Told]) -> Vec<&ContainerEvent> {
        told.iter().filter_map(|t| if let Told::Event(event) = t { Some(&**event) } else { None }).collect()
    }

    #[test]
    fn a_captured_run_is_told_in_order() {
        use Action::{Create, Destroy, Die, ExecCreate, ExecDie, ExecStart, Oom, Pause, Start, Unpause, Update};
        let told = told(include_str!("fixtures/run.hex"));
        let events = events(&told);
        let actions: Vec<_> = events.iter().map(|e| e.action).collect();
        let execs_out_of_memory = [ExecCreate, ExecStart, Oom, ExecDie, ExecCreate, ExecStart, Oom, ExecDie];
        let expected =
            [&[Create, Start, ExecCreate, ExecStart, ExecDie][..], &execs_out_of_memory, &[Pause, Unpause, Update, Die, Destroy]].concat();
        assert_eq!(actions, expected);
        assert!(events.iter().all(|e| &*e.key.container_id == "web" && &*e.key.runtime_namespace == "default"));
        assert!(events.is_sorted_by_key(|e| e.time_ns));
        let of = |action| events.iter().find(|e| e.action == action).unwrap();
        assert_eq!(of(Create).details.image.as_deref(), Some("docker.io/library/busybox:test"));
        assert_eq!(of(Start).details.run.pid, Some(1875));
        let die = &of(Die).details.run;
        assert_eq!((die.exit_code, die.pid), (Some(137), Some(1875)));
        assert!(die.finished_ns.is_some_and(|finished| finished <= of(Die).time_ns));
        let exec = of(ExecDie);
        assert_eq!((exec.exec_id.as_deref(), exec.attributes["exitCode"].as_str()), (Some("e1"), "3"));
        assert_eq!(exec.details.run.exit_code, None, "the container goes on");
        assert_eq!(of(Oom).details.run.oom_killed, Some(true));
    }

    #[test]
    fn the_parked_process_is_told_before_the_start() {
        let told = told(include_str!("fixtures/run.hex"));
        let Told::Parked { key, pid, bundle } = &told[1] else { panic!("{:?}", told[1]) };
        assert_eq!((&*key.container_id, *pid), ("web", 1875));
        assert_eq!(bundle.to_str(), Some("/run/containerd/io.containerd.runtime.v2.task/default/web"));
    }

    #[test]
    fn images_come_change_and_go() {
        let told = told(include_str!("fixtures/run.hex"));
        let changes: Vec<_> = told
            .iter()
            .filter_map(|t| if let Told::Image { name, change, .. } = t { Some((name.as_str(), *change)) } else { None })
            .collect();
        let name = "docker.io/library/bb:2";
        assert_eq!(changes, [(name, ImageChange::Created), (name, ImageChange::Updated), (name, ImageChange::Deleted)]);
    }

    #[test]
    fn dockers_containers_only_start_and_die_here() {
        let told = told(include_str!("fixtures/docker.hex"));
        let events = events(&told);
        assert_eq!(events.iter().map(|e| e.action).collect::<Vec<_>>(), [Action::Start, Action::Die]);
        assert!(
            events
                .iter()
                .all(|e| &*e.key.endpoint == "unix:///run/docker.sock" && e.details.runtime == mayfly_history::container::Runtime::Docker)
        );
    }

    #[test]
    fn truncated_events_are_refused_or_nothing_but_never_a_panic() {
        for whole in run() {
            let bytes = whole.event.as_ref().unwrap().value.clone();
            for length in 0..bytes.len() {
                let mut cut = whole.clone();
                cut.event.as_mut().unwrap().value.truncate(length);
                let _ = decode(&naming(), &cut);
            }
        }
    }

    #[test]
    fn what_the_topic_does_not_promise_is_refused() {
        let mut envelope = run().remove(2);
        envelope.topic = "/tasks/exit".into();
        assert!(matches!(decode(&naming(), &envelope), Err(Undecodable::Foreign { .. })));
        envelope.topic = "/tasks/newer-than-this".into();
        assert!(matches!(decode(&naming(), &envelope), Ok(Told::Nothing)));
        envelope.topic = "/tasks/start".into();
        envelope.event = None;
        assert!(matches!(decode(&naming(), &envelope), Err(Undecodable::Empty { .. })));
    }

    #[test]
    fn an_id_of_any_spelling_is_kept_and_a_huge_one_refused() {
        let start = |id: String| Envelope {
            topic: "/tasks/start".into(),
            namespace: "default".into(),
            event: Some(containerd_client::to_any(&TaskStart { container_id: id, pid: 7 })),
            ..Envelope::default()
        };
        let Ok(Told::Event(event)) = decode(&naming(), &start("wëb.1/x".into())) else { panic!() };
        assert_eq!(&*event.key.container_id, "wëb.1/x");
        assert!(matches!(decode(&naming(), &start("a".repeat(129))), Err(Undecodable::Id { .. })));
        assert!(matches!(decode(&naming(), &start(String::new())), Err(Undecodable::Id { .. })));
    }

    #[test]
    fn times_that_are_nothing_are_not_recorded() {
        assert_eq!(nanos(Timestamp { seconds: 1, nanos: 5 }), Some(1_000_000_005));
        assert_eq!(nanos(Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        assert_eq!(nanos(Timestamp { seconds: -62_135_596_800, nanos: 0 }), None, "Go's zero time");
    }
}
