//! A containerd that is none, on a socket, before a recorder that is one.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use containerd_client::{
    events::TaskExit,
    services::v1::{
        Container, ListContainerMessage, ListImagesResponse, ListNamespacesResponse, ListTasksResponse, Namespace, VersionResponse,
    },
    types::v1::{Process, Status},
};
use mayfly_history::{
    EventTable, HistoryTable, Redaction,
    container::ContainerState,
    recorder::{Declarations, Recorder, RecorderOptions},
    store::{IntervalRow, IntervalScan, Reader, StoreOptions},
    text,
};
use prost::{Message, Name};
use tokio::sync::{Mutex as Turn, mpsc};

use super::*;
use crate::{
    RuntimeConfig, SourcesConfig,
    grpc::fake::{Call, Reply, serve},
};

static EVENTS: EventTable<ContainerEvent> = EventTable {
    name: "container_lifecycle_events",
    doc: "",
    columns: &[text("container_id", |e: &ContainerEvent| Some((&*e.key.container_id).into()), "").index()],
    examples: &[],
};

static HISTORY: HistoryTable<ContainerState> = HistoryTable {
    name: "container_history",
    doc: "",
    columns: &[
        text("container_id", |s: &ContainerState| Some((&*s.key.container_id).into()), "").index(),
        text("state", |s| Some(s.state.as_str().into()), ""),
    ],
    witnesses: &[],
    examples: &[],
};

/// Its namespaces, each with one container of the same name, which runs; and what it was asked.
#[derive(Clone)]
struct Daemon {
    namespaces: Arc<Mutex<Vec<&'static str>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// `None`: it dies.
    events: Arc<Turn<mpsc::Receiver<Option<Envelope>>>>,
}

impl Daemon {
    async fn answer(self, call: Call, mut reply: Reply) {
        let Call { method, namespace, .. } = call;
        self.asked.lock().unwrap().push(format!("{method} {namespace}"));
        match method.as_str() {
            "Version/Version" => reply.send(&VersionResponse::default()),
            "Namespaces/List" => {
                let name = |name: &&str| Namespace { name: (*name).to_owned(), ..Namespace::default() };
                let namespaces = self.namespaces.lock().unwrap().iter().map(name).collect();
                reply.send(&ListNamespacesResponse { namespaces });
            }
            "Tasks/List" => {
                let task = Process { id: namespace, status: Status::Running.into(), ..Process::default() };
                reply.send(&ListTasksResponse { tasks: vec![task] });
            }
            "Containers/ListStream" => {
                let container = Some(Container { id: namespace, ..Container::default() });
                reply.send(&ListContainerMessage { container });
            }
            "Images/List" => reply.send(&ListImagesResponse::default()),
            "Events/Subscribe" => {
                let mut events = self.events.lock().await;
                while let Some(event) = events.recv().await {
                    match event {
                        Some(event) => reply.send(&event),
                        None => return reply.reset(),
                    }
                }
            }
            other => panic!("asked for {other}"),
        }
        reply.end("0");
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.contains(what)).count()
    }
}

/// State, open or not, and reason of the newest interval of a container.
fn newest(dir: &Path, id: &str) -> Option<(String, bool, String)> {
    let mut found = None;
    let scan = IntervalScan { keys: vec![id.to_owned()], ..IntervalScan::default() };
    let mut visit = |row: &IntervalRow<'_>| {
        let mayfly_history::Cell::Text(state) = row.cells[1] else { panic!("{:?}", row.cells) };
        found = Some((state.to_owned(), row.valid_to_ns.is_none(), row.ended_reason.to_owned()));
        ControlFlow::Continue(())
    };
    Reader::open(dir).ok()?.intervals(&HISTORY.schema(), &scan, &mut visit).ok()?;
    found
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_containers_of_a_namespace_that_vanished_are_closed_and_it_is_asked_for_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("containerd.sock");
    let (say, events) = mpsc::channel(8);
    let daemon =
        Daemon { namespaces: Arc::new(Mutex::new(vec!["stays", "goes"])), asked: Arc::default(), events: Arc::new(Turn::new(events)) };
    let serving = daemon.clone();
    serve(&socket, move |call, reply| serving.clone().answer(call, reply));
    let options = RecorderOptions {
        state_dir: dir.path().join("state"),
        store: StoreOptions::default(),
        redaction: Redaction::default(),
        notes: Vec::new(),
    };
    let state = options.state_dir.clone();
    std::fs::create_dir(&state).unwrap();
    let recorder = Recorder::start(Declarations::new(&EVENTS, &HISTORY), options).unwrap();
    let off = RuntimeConfig { enabled: false, endpoints: Vec::new() };
    let on = RuntimeConfig { enabled: true, endpoints: vec![socket.display().to_string()] };
    let config = SourcesConfig { docker: off.clone(), podman: off.clone(), containerd: on, cri: off, ..SourcesConfig::default() };
    let sources = crate::start(config, recorder.handle()).unwrap();
    let runs = |id: &str| newest(&state, id) == Some(("running".into(), true, String::new()));
    until("both run", || runs("stays") && runs("goes")).await;

    *daemon.namespaces.lock().unwrap() = vec!["stays"];
    let before = daemon.asked("goes");
    say.send(None).await.unwrap();
    until("it is closed", || newest(&state, "goes").is_some_and(|(_, is_open, _)| !is_open)).await;
    assert_eq!(newest(&state, "goes"), Some(("running".into(), false, "unknown".into())));

    // What is heard after that was not kept waiting by questions about it.
    let exit = TaskExit { container_id: "stays".into(), id: "stays".into(), ..TaskExit::default() };
    let event = prost_types::Any { type_url: TaskExit::type_url(), value: exit.encode_to_vec() };
    let envelope = Envelope { timestamp: None, namespace: "stays".into(), topic: "/tasks/exit".into(), event: Some(event) };
    say.send(Some(envelope)).await.unwrap();
    until("the other one ends", || newest(&state, "stays").is_some_and(|(state, ..)| state == "exited")).await;
    assert_eq!((daemon.asked("Version/Version"), daemon.asked("Namespaces/List")), (2, 2), "one look a connection");
    assert_eq!(daemon.asked("goes"), before, "nobody asks for what is not there");
    let feed = recorder.handle().feed("containerd", &format!("unix://{}", socket.display()));
    assert_eq!((feed.status().restarts, feed.status().state.as_str()), (1, "running"));
    tokio::task::spawn_blocking(|| sources.stop()).await.unwrap();
    recorder.stop().unwrap();
}
