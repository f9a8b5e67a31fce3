//! The store that `planning.toml` asks: four containers, one blind period. Included by the tests that run the cases.
//!
//! Times are seconds after `T0`, which lies ahead of any clock: what is written now was not "before the first record".

use std::{collections::BTreeMap, path::Path};

use mayfly_history::{
    container::{Action, ContainerEvent, ContainerKey, ContainerState, Details, Run, Runtime, State, Witness},
    feed::Gap,
    image::ImageEvent,
    store::{Interval, RowBuf, StoreError, StoreOptions, Writer},
};
use mayfly_tables::{CONTAINER_HISTORY, CONTAINER_IMAGE_EVENTS, CONTAINER_LIFECYCLE_EVENTS};

const T0: i64 = 4_000_000_000;
const ENDPOINT: &str = "unix:///run/docker.sock";

fn ns(after_ms: i64) -> i64 {
    (T0 * 1_000 + after_ms) * 1_000_000
}

fn key(id: &str) -> ContainerKey {
    ContainerKey { container_id: id.into(), runtime_namespace: "moby".into(), endpoint: ENDPOINT.into() }
}

fn details(id: &str) -> Details {
    let (name, image, label) = match id {
        "aaa" => ("web", "nginx", Some(("com.docker.compose.project", "shop"))),
        "bbb" => ("job", "busybox", None),
        "ccc" => ("db", "postgres", Some(("io.kubernetes.pod.name", "db-0"))),
        _ => ("lost", "busybox", None),
    };
    Details {
        runtime: Runtime::Docker,
        name: Some(name.into()),
        image: Some(image.into()),
        image_id: Some(format!("sha256:{image}")),
        labels: label.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect::<BTreeMap<_, _>>().into(),
        run: Run { ip_addresses: vec![format!("172.17.0.{}", id.as_bytes()[0] - b'a' + 2)], ..Run::default() },
        ..Details::default()
    }
}

/// Container, action, milliseconds after T0, exit code.
const EVENTS: [(&str, Action, i64, Option<i64>); 11] = [
    ("ccc", Action::Existing, 5000, None),
    ("aaa", Action::Create, 10000, None),
    ("aaa", Action::Start, 11000, None),
    ("ddd", Action::Start, 12000, None),
    ("aaa", Action::ExecStart, 15500, None),
    ("bbb", Action::Create, 20250, None),
    ("bbb", Action::Start, 21000, None),
    ("bbb", Action::Die, 22500, Some(3)),
    ("bbb", Action::Destroy, 23000, None),
    ("aaa", Action::Die, 50000, Some(137)),
    ("eee", Action::Start, 51000, None),
];

/// Container, state, from, to (milliseconds after T0), why it ended. Nothing is known of `eee`.
const STATES: [(&str, State, i64, Option<i64>, &str); 8] = [
    ("ccc", State::Running, 5000, None, ""),
    ("aaa", State::Created, 10000, Some(11000), "start"),
    ("aaa", State::Running, 11000, Some(50000), "die"),
    ("aaa", State::Exited, 50000, None, ""),
    ("ddd", State::Running, 12000, Some(40000), "unknown"),
    ("bbb", State::Created, 20250, Some(21000), "start"),
    ("bbb", State::Running, 21000, Some(22500), "die"),
    ("bbb", State::Exited, 22500, Some(23000), "destroy"),
];

/// Writes the store into `dir`.
pub(crate) fn write(dir: &Path) -> Result<(), StoreError> {
    let mut writer = Writer::open(dir, &StoreOptions::default())?.writer;
    let events = writer.events(&CONTAINER_LIFECYCLE_EVENTS.schema())?;
    let images = writer.events(&CONTAINER_IMAGE_EVENTS.schema())?;
    let history = writer.history(&CONTAINER_HISTORY.schema())?;
    let mut row = RowBuf::default();
    let mut transaction = writer.begin()?;
    for (id, action, at, exit_code) in EVENTS {
        let mut details = details(id);
        details.run.exit_code = exit_code;
        let event = ContainerEvent {
            time_ns: ns(at),
            action,
            source: Witness::Docker,
            recovered: false,
            key: key(id),
            exec_id: None,
            lifetime_ms: exit_code.map(|code| if code == 3 { 1_500 } else { 39_000 }),
            details,
            attributes: BTreeMap::new(),
            settled: true,
        };
        row.encode(CONTAINER_LIFECYCLE_EVENTS.columns, &event);
        transaction.append(events, event.time_ns, &row)?;
    }
    for (id, state, from, to, ended_reason) in STATES {
        let state = ContainerState { key: key(id), state, details: details(id) };
        row.encode(CONTAINER_HISTORY.columns, &state);
        let interval =
            Interval { key: id, scope: ENDPOINT, valid_from_ns: ns(from), valid_to_ns: to.map(ns), ended_reason, evidence: "docker" };
        transaction.put_interval(history, &interval, &row)?;
    }
    let deleted = ImageEvent {
        time_ns: ns(60000),
        action: "delete",
        runtime: Runtime::Docker,
        image: Some("nginx".into()),
        image_id: Some("sha256:nginx".into()),
        runtime_namespace: "moby".into(),
        endpoint: ENDPOINT.into(),
        ..ImageEvent::default()
    };
    row.encode(CONTAINER_IMAGE_EVENTS.columns, &deleted);
    transaction.append(images, deleted.time_ns, &row)?;
    let gap = Gap {
        source: "docker".into(),
        endpoint: ENDPOINT.into(),
        cause: "daemon_down".into(),
        from_ns: ns(30000),
        to_ns: Some(ns(40000)),
        recovered: 0,
        detail: "1 container was gone afterwards".into(),
    };
    transaction.put_gap(&gap)?;
    transaction.commit()
}
