//! The worker against stores that go away under it.

mod evicted;

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{saving::LONGEST_PAUSE, *};
use crate::{
    container::{Action, Witness},
    recorder::{
        Declarations,
        tests::{
            docker, event,
            recorded::{EVENTS, declarations, intervals, rows},
            trouble::{damage, gaps},
        },
    },
    sink::Received,
    store::StoreError,
};

fn worker(dir: &Path) -> Worker {
    worker_of(dir, declarations())
}

fn worker_of(dir: &Path, declarations: Declarations) -> Worker {
    let mut writer = Writer::open(dir, &StoreOptions::default()).unwrap().writer;
    let shared = Arc::new(Shared::default());
    let sinks = Sinks::new(shared.feeds.bell().clone());
    let (events, history) = (declarations.container_events, declarations.container_history);
    let (lanes, tables) = declarations.open(&sinks);
    let kept = Kept::read(&mut writer, &tables).unwrap();
    let beginning = Beginning {
        dir: dir.to_owned(),
        store: StoreOptions::default(),
        events,
        history,
        lanes,
        tables,
        redaction: Redaction::default(),
        notes: Vec::new(),
        writer,
        kept,
        blind_since: None,
    };
    Worker::begin(beginning, shared, sinks)
}

fn moment() -> Moment {
    Moment { at: Instant::now(), wall_ns: now() }
}

/// A worker that holds an event which is not written yet, and whose store could not be replaced.
fn without_store(dir: &Path) -> Worker {
    let mut worker = worker(dir);
    let create = event(&docker("c1"), Witness::Docker, Action::Create, now());
    worker.ledger.take(Received { item: Report::Event(Box::new(create)), feed: Feed::new("docker", ""), cursor: None }, moment());
    worker.ledger.settle(moment());
    worker.writer = None;
    worker
}

#[test]
fn a_batch_is_written_to_the_store_that_was_opened_again_and_only_then_settled() {
    let dir = TempDir::new().unwrap();
    let mut worker = without_store(dir.path());
    worker.gaps.put(own_gap("store_failed", 1, 2, String::new()));
    worker.collect(moment());
    worker.commit();
    assert!(worker.failing.is_none() && worker.batch.is_empty());
    assert_eq!((rows(dir.path(), &EVENTS).len(), gaps(dir.path(), "store_failed").len()), (1, 1));
}

#[test]
fn a_store_that_cannot_be_opened_again_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let mut worker = without_store(dir.path());
    worker.dir = dir.path().join("file");
    fs::write(&worker.dir, "").unwrap();
    worker.collect(moment());
    worker.commit();
    worker.failing.as_mut().unwrap().retry_at = Instant::now();
    let damaged = StoreError::Integrity { path: worker.dir.clone(), finding: "torn".into() };
    worker.replace_store(&damaged);
    worker.beat(moment());
    worker.note_status(moment());
    assert!(!worker.batch.is_empty());
    assert!(worker.next_deadline() > Instant::now(), "it does not spin");
}

#[test]
fn the_last_batch_goes_into_the_store_that_replaces_a_damaged_one() {
    let dir = TempDir::new().unwrap();
    let worker = without_store(dir.path());
    damage(dir.path(), "subjects");
    worker.finish(moment()).unwrap();
    assert_eq!((rows(dir.path(), &EVENTS).len(), gaps(dir.path(), "store_failed").len()), (1, 1));
}

#[test]
fn a_store_that_is_damaged_again_at_once_is_replaced_only_after_a_pause() {
    let dir = TempDir::new().unwrap();
    let mut worker = worker(dir.path());
    let damaged = || StoreError::Integrity { path: dir.path().to_owned(), finding: "torn".into() };
    let aside =
        || fs::read_dir(dir.path()).unwrap().filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("corrupt")).count();
    worker.replace_store(&damaged());
    let once = aside();
    worker.replace_store(&damaged());
    assert_eq!((aside(), worker.failing.is_some()), (once, true));
    assert!(worker.next_deadline() > Instant::now() || worker.status_at.is_some(), "it does not spin");
    worker.replaced_at = Some(Instant::now() - LONGEST_PAUSE);
    worker.replace_store(&damaged());
    assert!(aside() > once);
}

#[test]
fn rows_that_wait_for_a_store_are_bounded_by_their_bytes() {
    let dir = TempDir::new().unwrap();
    let (mut worker, feed) = (without_store(dir.path()), Feed::new("docker", ""));
    for n in 0..600 {
        let mut create = event(&docker(&format!("c{n}")), Witness::Docker, Action::Create, now());
        create.details.command = Some("x".repeat(60_000));
        worker.ledger.take(Received { item: Report::Event(Box::new(create)), feed: feed.clone(), cursor: None }, moment());
        worker.ledger.settle(moment());
    }
    worker.collect(moment());
    assert!((300..400).contains(&feed.status().evicted), "{:?}", feed.status());
    assert_eq!(worker.batch.evicted, feed.status().evicted + 1, "and the first of all");
}

#[test]
fn what_ended_is_bounded_while_the_store_fails_and_the_loss_is_counted() {
    let dir = TempDir::new().unwrap();
    let mut worker = without_store(dir.path());
    worker.dir = dir.path().join("file");
    fs::write(&worker.dir, "").unwrap();
    let feed = Feed::new("docker", "");
    for n in 0..3000 {
        for action in [Action::Create, Action::Destroy] {
            let item = Report::Event(Box::new(event(&docker(&format!("d{n}")), Witness::Docker, action, now())));
            worker.ledger.take(Received { item, feed: feed.clone(), cursor: None }, moment());
        }
        worker.ledger.settle(moment());
    }
    worker.collect(moment());
    worker.commit();
    assert!(worker.ledger.is_crowded() && !worker.batch.is_empty());
    worker.beat(moment());
    assert!(!worker.ledger.is_crowded());

    worker.dir = dir.path().to_owned();
    worker.collect(moment());
    worker.commit();
    worker.commit();
    let gap = gaps(dir.path(), "store_failed").remove(0);
    assert!(gap.detail.starts_with("0 events and the ends of 2488 containers lost: "), "{}", gap.detail);
}

#[test]
fn once_the_store_takes_events_again_nothing_that_ended_goes_on_in_it_and_sources_are_asked_for_what_exists() {
    let dir = TempDir::new().unwrap();
    let mut worker = worker(dir.path());
    let feed = worker.shared.feeds.feed("docker", "");
    let take = |worker: &mut Worker, n: usize, actions: &[Action]| {
        for action in actions {
            let item = Report::Event(Box::new(event(&docker(&format!("d{n}")), Witness::Docker, *action, now())));
            worker.ledger.take(Received { item, feed: feed.clone(), cursor: None }, moment());
        }
        worker.ledger.settle(moment());
    };
    take(&mut worker, 0, &[Action::Create, Action::Start]);
    worker.collect(moment());
    worker.commit();
    assert!(intervals(dir.path(), "d0").last().unwrap().1, "it runs");

    let (place, writer) = (std::mem::replace(&mut worker.dir, dir.path().join("file")), worker.writer.take());
    drop(writer);
    fs::write(&worker.dir, "").unwrap();
    take(&mut worker, 0, &[Action::Die, Action::Destroy]);
    for n in 1..1500 {
        take(&mut worker, n, &[Action::Create, Action::Destroy]);
    }
    worker.collect(moment());
    worker.commit();
    worker.beat(moment());
    assert!(worker.ledger.subject(&docker("d0")).unwrap().sealed_ns.is_some(), "its evidence is forgotten");

    worker.dir = place;
    worker.commit();
    let last = intervals(dir.path(), "d0").pop().unwrap();
    assert_eq!((&*last.0, last.1, &*last.2), ("running", false, "unknown"));
    let mut asked = std::pin::pin!(feed.resync_wanted());
    assert!(asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready());
}
