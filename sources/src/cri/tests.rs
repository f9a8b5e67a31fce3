//! A CRI-O that is none, on a socket: it tells its events as the real one does.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use mayfly_history::{
    container::{Action, ContainerEvent, Report, State},
    recorder::{Handle, Sinks},
    sink::Bell,
};
use prost::{Message, bytes::Bytes};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Mutex, mpsc},
};

use super::messages::{
    Container, ContainerEventResponse, ContainerMetadata, ContainerStatus, ContainerStatusResponse, ListContainersResponse,
    ListPodSandboxResponse, VersionResponse,
};
use crate::{RuntimeConfig, SourcesConfig};

type Events = Arc<Mutex<mpsc::Receiver<ContainerEventResponse>>>;

/// Serves one connection until its event stream ends.
async fn serve(connection: UnixStream, events: Events) {
    let mut connection = h2::server::handshake(connection).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&events)));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, events: Events) {
    let (head, mut body) = request.into_parts();
    let asked = body.data().await.map_or_else(Bytes::new, Result::unwrap);
    let of = |id: &str| asked.windows(id.len()).any(|part| part == id.as_bytes());
    let mut code = "0";
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    let mut send = |message: Vec<u8>| {
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        stream.send_data(frame.into(), false)
    };
    match head.uri.path().rsplit('/').next().unwrap() {
        "Version" => send(VersionResponse { runtime_name: "cri-o".into(), ..Default::default() }.encode_to_vec()).unwrap(),
        "ListPodSandbox" => send(ListPodSandboxResponse::default().encode_to_vec()).unwrap(),
        "ListContainers" => {
            let metadata = Some(ContainerMetadata { name: "mute".into() });
            let mute = Container { id: "mute".into(), metadata, state: 1, created_at: 5, ..Default::default() };
            let gone = Container { id: "gone".into(), state: 1, ..Default::default() };
            send(ListContainersResponse { containers: vec![mute, gone] }.encode_to_vec()).unwrap();
        }
        "ContainerStatus" if of("mute") => code = "13",
        "ContainerStatus" if of("gone") => code = "5",
        "ContainerStatus" => {
            let status =
                ContainerStatus { id: "c1".into(), metadata: Some(ContainerMetadata { name: "app".into() }), ..Default::default() };
            let info = HashMap::from([("info".to_owned(), format!(r#"{{"pid": {}, "sandboxID": "5a"}}"#, std::process::id()))]);
            send(ContainerStatusResponse { status: Some(status), info }.encode_to_vec()).unwrap();
        }
        "GetContainerEvents" => {
            let mut events = events.lock().await;
            while let Some(event) = events.recv().await {
                // The daemon that dies in the middle of its stream.
                if event.container_id == "crash" {
                    stream.send_reset(h2::Reason::INTERNAL_ERROR);
                    return;
                }
                send(event.encode_to_vec()).unwrap();
            }
        }
        other => panic!("asked for {other}"),
    }
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static(code))]);
    stream.send_trailers(trailers).unwrap();
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
    let listener = UnixListener::bind(&socket).unwrap();
    let (say, events) = mpsc::channel(8);
    let events = Arc::new(Mutex::new(events));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, Arc::clone(&events)));
        }
    });
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
