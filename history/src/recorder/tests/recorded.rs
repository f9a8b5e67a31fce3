//! The recorder as a whole, with its thread and its store.

use std::{fs, ops::ControlFlow, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    Cell, Feed, Redaction,
    image::ImageEvent,
    recorder::{Declarations, Handle, Recorder, RecorderOptions},
    store::{EventScan, IntervalScan, Reader, StoreOptions},
    table::{EventTable, HistoryTable, integer, text},
    time::now,
};

pub(in crate::recorder) static EVENTS: EventTable<ContainerEvent> = EventTable {
    name: "container_lifecycle_events",
    doc: "",
    columns: &[
        text("container_id", |e: &ContainerEvent| Some((&*e.key.container_id).into()), "").index(),
        text("action", |e| Some(e.action.as_str().into()), ""),
        text("command", |e| e.details.command.as_deref().map(Into::into), ""),
        integer("recovered", |e| Some(e.recovered.into()), ""),
        text("shed", |e| e.attributes.get("shed").map(|n| n.as_str().into()), ""),
    ],
    examples: &[],
};

static HISTORY: HistoryTable<ContainerState> = HistoryTable {
    name: "container_history",
    doc: "",
    columns: &[
        text("container_id", |s: &ContainerState| Some((&*s.key.container_id).into()), "").index(),
        text("state", |s| Some(s.state.as_str().into()), ""),
        integer("exit_code", |s| s.details.run.exit_code, ""),
    ],
    witnesses: &["docker"],
    examples: &[],
};

static IMAGES: EventTable<ImageEvent> =
    EventTable { name: "container_image_events", doc: "", columns: &[text("action", |e| Some(e.action.into()), "")], examples: &[] };

use crate::container::ContainerState;

pub(in crate::recorder) fn declarations() -> Declarations {
    let mut declarations = Declarations::new(&EVENTS, &HISTORY);
    declarations.add_events(&IMAGES);
    declarations
}

pub(super) fn start(dir: &Path) -> Recorder {
    let options = RecorderOptions {
        state_dir: dir.to_owned(),
        store: StoreOptions::default(),
        redaction: Redaction::default(),
        notes: vec![("version".into(), "1".into())],
    };
    Recorder::start(declarations(), options).unwrap()
}

fn texts(cells: &[Cell<'_>]) -> Vec<String> {
    let text = |cell: &Cell<'_>| match cell {
        Cell::Null => String::new(),
        Cell::Int(n) => n.to_string(),
        Cell::Text(text) => (*text).to_owned(),
    };
    cells.iter().map(text).collect()
}

/// The cells of all events of a table.
pub(in crate::recorder) fn rows<E>(dir: &Path, table: &EventTable<E>) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let reader = Reader::open(dir).unwrap();
    let mut visit = |row: &crate::store::EventRow<'_>| {
        rows.push(texts(row.cells));
        ControlFlow::Continue(())
    };
    reader.events(&table.schema(), &EventScan::default(), &mut visit).unwrap();
    rows
}

/// State, open or not, reason and exit code of a container's intervals.
pub(in crate::recorder) fn intervals(dir: &Path, id: &str) -> Vec<(String, bool, String, String)> {
    let mut rows = Vec::new();
    let scan = IntervalScan { keys: vec![id.to_owned()], ..IntervalScan::default() };
    let mut visit = |row: &crate::store::IntervalRow<'_>| {
        let cells = texts(row.cells);
        rows.push((cells[1].clone(), row.valid_to_ns.is_none(), row.ended_reason.to_owned(), cells[2].clone()));
        ControlFlow::Continue(())
    };
    Reader::open(dir).unwrap().intervals(&HISTORY.schema(), &scan, &mut visit).unwrap();
    rows
}

pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn push(handle: &Handle, feed: &Feed, event: ContainerEvent) {
    handle.sinks().containers.push(feed, Report::Event(Box::new(event)));
}

pub(super) fn life(id: &str, begins_ns: Nanos) -> Vec<ContainerEvent> {
    let key = docker(id);
    vec![
        event(&key, Witness::Docker, Action::Create, begins_ns),
        event(&key, Witness::Docker, Action::Start, begins_ns + MS),
        with_run(event(&key, Witness::Docker, Action::Die, begins_ns + 2 * MS), exit(3)),
        event(&key, Witness::Docker, Action::Destroy, begins_ns + 3 * MS),
    ]
}

#[test]
fn what_is_settled_is_visible_within_some_milliseconds() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", "unix:///run/docker.sock"));
    let pushed = Instant::now();
    life("c1", now()).into_iter().for_each(|event| push(&handle, &feed, event));
    wait_until("four rows", || rows(dir.path(), &EVENTS).len() == 4);
    assert!(pushed.elapsed() < Duration::from_millis(250), "none of them waited: {:?}", pushed.elapsed());
    wait_until("the source's row", || Reader::open(dir.path()).unwrap().sources().unwrap().iter().any(|s| s.events == 4));
    recorder.stop().unwrap();
    let states: Vec<_> = intervals(dir.path(), "c1");
    assert_eq!(states[2], ("exited".into(), false, "destroyed".into(), "3".into()));
    assert_eq!(states.len(), 3);
}

#[test]
fn the_next_recorder_resumes_writes_the_gap_and_knows_what_was_told() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    assert_eq!(recorder.handle().blind_since(), None);
    let handle = recorder.handle();
    let feed = handle.feed("docker", "unix:///run/docker.sock");
    assert_eq!(handle.cursor(&feed), None);
    let begins = now();
    for event in life("c1", begins) {
        handle.sinks().containers.push_at(&feed, Report::Event(Box::new(event.clone())), event.time_ns.to_string());
    }
    let image = ImageEvent { time_ns: begins, action: "pull", ..ImageEvent::default() };
    handle.sinks().images.push(&feed, image.clone());
    recorder.stop().unwrap();

    let recorder = start(dir.path());
    let handle = recorder.handle();
    assert!(handle.blind_since().is_some_and(|since| since >= begins));
    let feed = handle.feed("docker", "unix:///run/docker.sock");
    assert_eq!(handle.cursor(&feed), Some((begins + 3 * MS).to_string()));
    for event in life("c1", begins).into_iter().chain(life("c2", now())) {
        push(&handle, &feed, ContainerEvent { recovered: true, ..event });
    }
    handle.sinks().images.push(&feed, image);
    recorder.stop().unwrap();
    let told = rows(dir.path(), &EVENTS);
    assert_eq!(told.iter().map(|r| &*r[0]).collect::<Vec<_>>(), ["c1", "c1", "c1", "c1", "c2", "c2", "c2", "c2"]);
    assert_eq!(rows(dir.path(), &IMAGES).len(), 1);
    let status = feed.status();
    assert_eq!((status.received, status.events), (9, 9), "evidence for what was told is stored too");
    let gaps = Reader::open(dir.path()).unwrap().gaps().unwrap();
    let down = gaps.iter().find(|g| g.cause == "recorder_down").unwrap();
    assert_eq!((&*down.source, down.recovered), ("recorder", 4));
}

#[test]
fn secrets_never_reach_the_store() {
    let dir = TempDir::new().unwrap();
    let recorder = start(dir.path());
    let (handle, feed) = (recorder.handle(), recorder.handle().feed("docker", ""));
    let mut create = event(&docker("c1"), Witness::Docker, Action::Create, now());
    create.details.command = Some("mysql --password=hunter2".into());
    push(&handle, &feed, create);
    recorder.stop().unwrap();
    assert_eq!(rows(dir.path(), &EVENTS)[0][2], "mysql --password=[redacted]");
    for file in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn received_is_stored_or_evicted_or_rejected(
        containers in prop::collection::vec((0u8..12, 0usize..Action::ALL.len(), any::<bool>(), 0i64..4000), 0..600),
        storm in 0i64..12_000,
    ) {
        let dir = TempDir::new().unwrap();
        let recorder = start(dir.path());
        let handle = recorder.handle();
        let feeds = [handle.feed("docker", ""), handle.feed("containerd", "")];
        let begins = now();
        for (n, (container, action, is_docker, at)) in (0..).zip(containers) {
            let (witness, feed) = if is_docker { (Witness::Docker, &feeds[0]) } else { (Witness::Containerd, &feeds[1]) };
            let mut event = event(&docker(&format!("c{container}")), witness, Action::ALL[action], begins + at * MS);
            event.settled = n % 3 == 0;
            push(&handle, feed, event);
        }
        for n in 0..storm {
            push(&handle, &feeds[0], event(&docker(&format!("s{}", n % 3)), Witness::Docker, Action::HealthStatus, begins + n));
        }
        recorder.stop().unwrap();
        for status in feeds.iter().map(Feed::status) {
            prop_assert_eq!(status.received, status.events + status.evicted + status.rejected, "{:?}", status);
        }
    }
}
