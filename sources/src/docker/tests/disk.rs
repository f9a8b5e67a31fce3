//! Docker's own files on disks that answer, fail, are slow, or hang.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use super::{
    super::{
        fake::INSPECT,
        files::{AT_ONCE, Disk},
        inspect::Inspect,
    },
    *,
};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A disk that answers of a container when the test lets it.
#[derive(Clone, Default)]
struct Platter(Arc<(Mutex<Reads>, Condvar)>);

#[derive(Default)]
struct Reads {
    /// All that were ever begun.
    begun: BTreeSet<String>,
    answered: BTreeSet<String>,
    /// It answers whoever asks.
    free: bool,
}

impl Platter {
    fn disk(&self, patience: Duration) -> Disk {
        let platter = self.clone();
        Disk::with(patience, Arc::new(move |path: &Path| Some(platter.read(path))))
    }

    fn read(&self, path: &Path) -> Inspect {
        let id = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let (reads, changed) = &*self.0;
        let mut now = reads.lock().unwrap();
        now.begun.insert(id.clone());
        drop(changed.wait_while(now, |reads| !reads.free && !reads.answered.contains(&id)).unwrap());
        let run = r#"{"Running":true,"Pid":2147483647,"StartedAt":"2026-11-22T20:00:29Z"}"#;
        let text = format!(r#"{{"Image":"sha256:d5","Path":"disk","Args":["{id}"],"Config":{{"Image":"busybox"}},"State":{run}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn answer(&self, id: &str) {
        self.0.0.lock().unwrap().answered.insert(id.to_owned());
        self.0.1.notify_all();
    }

    fn begun(&self) -> usize {
        self.0.0.lock().unwrap().begun.len()
    }
}

/// Lets the threads end, that the test's runtime waits for.
struct Freed(Platter);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.0.0.lock().unwrap().free = true;
        self.0.0.1.notify_all();
    }
}

/// A daemon that tells these events and where its files are; it answers an inspect or not.
fn daemon(events: String, answers: bool) -> Fake {
    Fake::new(move |path| match path {
        path if path.ends_with("/info") => Answer::Json(r#"{"DockerRootDir":"/docker"}"#.into()),
        path if path.contains("/events?") => Answer::Open(events.clone()),
        path if path.contains("/containers/c") && !answers => Answer::Open(String::new()),
        path if path.contains("/containers/c") => Answer::Json(INSPECT.into()),
        path => Answer::Json(usual(path).into()),
    })
}

fn event_of(id: &str, action: &str, at: i64) -> String {
    event(action, at).replace("ab12", id)
}

/// The container and what the details told of its command: `disk` and the id where its files did, nothing where the daemon did.
fn details(reports: &[Report]) -> Vec<(&str, Option<&str>)> {
    let told = reports.iter().filter_map(|report| match report {
        Report::Details { key, details, .. } if details.run.started_ns.is_some() => Some((&*key.container_id, details.command.as_deref())),
        _ => None,
    });
    told.collect()
}

#[tokio::test]
async fn details_from_the_disk_follow_the_event_that_waits_for_them() {
    let at = soon();
    let fake = daemon(event_of("c1", "create", at), false);
    let platter = Platter::default();
    let _freed = Freed(platter.clone());
    platter.answer("c1");
    let is_started = std::cell::Cell::new(false);
    let (reports, outcome) = follow(&fake, &mut fake.source_on(platter.disk(FOR_EVER)), |reports| {
        if details(reports).len() == 1 && !is_started.replace(true) {
            fake.tell(event_of("c1", "start", at + 1));
        }
        details(reports).len() == 2
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let told: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Event(event) => Some((event.action.as_str(), event.settled)),
            Report::Details { details, .. } if details.command.as_deref() == Some("disk c1") => {
                assert_eq!(details.run.pid, Some(2_147_483_647));
                Some(("details", true))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [("create", false), ("details", true), ("start", false), ("details", true)]);
}

#[tokio::test]
async fn a_slow_disk_stops_no_stream_and_what_it_tells_late_is_of_whom_it_tells() {
    let at = soon();
    let events = event_of("c1", "create", at) + &event_of("c2", "create", at + 1) + &event_of("c1", "die", at + 2);
    let fake = daemon(events, false);
    let platter = Platter::default();
    let _freed = Freed(platter.clone());
    let (reports, outcome) = follow(&fake, &mut fake.source_on(platter.disk(FOR_EVER)), |reports| {
        // All is told while the disk has not said a word; then it answers the other way round.
        if actions(reports).len() == 3 && platter.begun() == 2 {
            platter.answer("c2");
        }
        if details(reports).len() == 1 {
            platter.answer("c1");
        }
        details(reports).len() == 2
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(actions(&reports), [Action::Create, Action::Create, Action::Die]);
    assert_eq!(details(&reports), [("c2", Some("disk c2")), ("c1", Some("disk c1"))]);
}

#[tokio::test]
async fn a_disk_that_answers_after_the_session_told_nobody_anything() {
    let at = soon();
    let fake = daemon(event_of("c1", "create", at), false);
    let platter = Platter::default();
    let _freed = Freed(platter.clone());
    let mut source = fake.source_on(platter.disk(FOR_EVER));
    let (before, _) = follow(&fake, &mut source, |reports| !actions(reports).is_empty() && platter.begun() == 1).await;
    assert_eq!(details(&before), []);
    platter.answer("c1");
    platter.answer("c2");
    let is_told = std::cell::Cell::new(false);
    let (reports, outcome) = follow(&fake, &mut source, |reports| {
        if !actions(reports).is_empty() && !is_told.replace(true) {
            fake.tell(event_of("c2", "create", at + 1));
        }
        details(reports).iter().any(|(id, _)| *id == "c2")
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let told = details(&reports);
    assert!(told.iter().all(|(id, command)| *command == Some(&*format!("disk {id}"))), "{told:?}");
    assert!(told.iter().filter(|(id, _)| *id == "c1").count() <= 1, "at most what this session asked: {told:?}");
}

#[tokio::test]
async fn where_the_disk_fails_the_daemon_is_asked() {
    let fake = daemon(event_of("c1", "create", soon()), true);
    let disk = Disk::with(FOR_EVER, Arc::new(|_: &Path| None));
    let (reports, outcome) = follow(&fake, &mut fake.source_on(disk), |reports| !details(reports).is_empty()).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(details(&reports), [("c1", None)]);
}

#[tokio::test]
async fn a_disk_that_hangs_takes_so_many_threads_and_no_more() {
    let at = soon();
    let containers = AT_ONCE + 40;
    let creates: String = (0..containers).map(|n| event_of(&format!("c{n}"), "create", at + i64::try_from(n).unwrap())).collect();
    let fake = daemon(creates, true);
    let platter = Platter::default();
    let _freed = Freed(platter.clone());
    let mut source = fake.source_on(platter.disk(Duration::from_millis(1)));
    let (reports, outcome) = follow(&fake, &mut source, |reports| details(reports).len() == containers && platter.begun() == AT_ONCE).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(details(&reports).iter().all(|(_, command)| command.is_none()), "the daemon told of each");

    // The next session has those threads not back.
    let is_told = std::cell::Cell::new(false);
    let (_, outcome) = follow(&fake, &mut source, |reports| {
        if !actions(reports).is_empty() && !is_told.replace(true) {
            fake.tell(event_of("cx", "create", at + 1_000_000));
        }
        details(reports).iter().any(|(id, _)| *id == "cx")
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(platter.begun(), AT_ONCE);
}
