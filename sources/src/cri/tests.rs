//! A CRI-O that is none, on a socket: it tells its events as the real one does.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mayfly_history::{
    container::{Action, ContainerEvent, Report, State},
    recorder::{Handle, Sinks},
    sink::Bell,
};
use tokio::sync::{Mutex, mpsc};

use super::messages::{
    Container, ContainerEventResponse, ContainerMetadata, ContainerStatus, ContainerStatusResponse, ListContainersResponse,
    ListPodSandboxResponse, VersionResponse,
};
use crate::{
    RuntimeConfig, SourcesConfig,
    grpc::fake::{Call, Reply, serve},
};

type Events = Arc<Mutex<mpsc::Receiver<ContainerEventResponse>>>;

async fn answer(call: Call, mut reply: Reply, events: Events) {
    let of = |id: &str| call.body.windows(id.len()).any(|part| part == id.as_bytes());
    let mut status = "0";
    match call.method.as_str() {
        "RuntimeService/Version" => reply.send(&VersionResponse { runtime_name: "cri-o".into(), ..Default::default() }),
        "RuntimeService/ListPodSandbox" => reply.send(&ListPodSandboxResponse::default()),
        "RuntimeService/ListContainers" => {
            let metadata = Some(ContainerMetadata { name: "mute".into() });
            let mute = Container { id: "mute".into(), metadata, state: 1, created_at: 5, ..Default::default() };
            let gone = Container { id: "gone".into(), state: 1, ..Default::default() };
            reply.send(&ListContainersResponse { containers: vec![mute, gone] });
        }
        "RuntimeService/ContainerStatus" if of("mute") => status = "13",
        "RuntimeService/ContainerStatus" if of("gone") => status = "5",
        "RuntimeService/ContainerStatus" => {
            let status =
                ContainerStatus { id: "c1".into(), metadata: Some(ContainerMetadata { name: "app".into() }), ..Default::default() };
            let info = HashMap::from([("info".to_owned(), format!(r#"{{"pid": {}, "sandboxID": "5a"}}"#, std::process::id()))]);
            reply.send(&ContainerStatusResponse { status: Some(status), info });
        }
        "RuntimeService/GetContainerEvents" => {
            let mut events = events.lock().await;
            while let Some(event) = events.recv().await {
                // The daemon that dies in the middle of its stream.
                if event.container_id == "crash" {
                    return reply.reset();
                }
                reply.send(&event);
            }
        }
        other => panic!("asked for {other}"),
    }
    reply.end(status);
}

/// Reports as they come, until there are `amount`.
async fn collect(sinks: &Sinks, amount: usize) -> Vec<Report> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut reports = Vec::new();
    while reports.len() < amount {
        assert!(Instant::now() < deadline, "not all came: {reports:#?}");
        reports.extend(sinks.containers.drain(64).into_iter().map(|received| received.item));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    reports
}

fn event(report: &Report) -> &ContainerEvent {
    let Report::Event(event) = report else { panic!("{report:?}") };
    event
}

#[tokio::test]
async fn events_of_cri_o_are_recorded_and_a_broken_stream_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("crio.sock");
    let (say, events) = mpsc::channel(8);
    let events = Arc::new(Mutex::new(events));
    serve(&socket, move |call, reply| answer(call, reply, Arc::clone(&events)));
    let off = RuntimeConfig { enabled: false, endpoints: Vec::new() };
    let on = RuntimeConfig { enabled: true, endpoints: vec![socket.display().to_string()] };
    let bell = Bell::default();
    let sinks = Sinks::new(bell);
    let config = SourcesConfig { docker: off.clone(), podman: off.clone(), containerd: off, cri: on, ..SourcesConfig::default() };
    let recorder = Handle::detached(sinks.clone());
    let sources = crate::start(config, recorder.clone()).unwrap();

    let Report::Snapshot(first) = collect(&sinks, 1).await.remove(0) else { panic!("no snapshot first") };
    assert_eq!((first.blind_since, &*first.runtime_namespace), (None, ""));
    let [(key, state, details)] = &first.containers[..] else { panic!("{first:?}") };
    assert_eq!(
        (&*key.container_id, *state, details.name.as_deref()),
        ("mute", State::Running, Some("mute")),
        "it has no status, but is listed"
    );

    let said = |kind, created_at| ContainerEventResponse {
        container_id: "c1".into(),
        container_event_type: kind,
        created_at,
        ..Default::default()
    };
    for event in [said(0, 10), said(1, 20), said(77, 25), said(2, 30), said(3, 40)] {
        say.send(event).await.unwrap();
    }
    let reports = collect(&sinks, 4).await;
    let told: Vec<_> = reports.iter().map(|report| (event(report).action, event(report).time_ns)).collect();
    assert_eq!(told, [(Action::Create, 10), (Action::Start, 20), (Action::Die, 30), (Action::Destroy, 40)]);
    let created = &event(&reports[0]).details;
    assert_eq!((created.name.as_deref(), created.sandbox_id.as_deref(), created.run.pid), (Some("app"), Some("5a"), None));
    let started = &event(&reports[1]).details.run;
    assert_eq!((started.pid, started.started_ns), (Some(std::process::id().into()), Some(20)));
    assert!(started.net_namespace.is_some(), "the kernel's view of the process");

    recorder.feed("cri", &format!("unix://{}", socket.display())).want_resync(7);
    let Report::Snapshot(lost) = collect(&sinks, 1).await.remove(0) else { panic!("no snapshot after a loss") };
    assert_eq!((lost.blind_since, lost.containers.len()), (Some(7), 1));

    say.send(ContainerEventResponse { container_id: "crash".into(), ..Default::default() }).await.unwrap();
    let Report::Snapshot(again) = collect(&sinks, 1).await.remove(0) else { panic!("no snapshot after the gap") };
    assert!(again.blind_since.is_some_and(|since| since <= again.taken_ns));
    tokio::task::spawn_blocking(|| sources.stop()).await.unwrap();
}
