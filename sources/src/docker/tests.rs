//! Sessions with daemons that behave, and with some that do not.

mod disk;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use mayfly_history::container::{Action, Report, State};
use tokio_util::sync::CancellationToken;

use super::fake::{Answer, Fake, VERSION, usual};
use crate::{error::SourceError, supervise::Source};

/// An event of container `ab12` that happens `later` seconds from now, past the time at which a session begins.
fn event(action: &str, time_ns: i64) -> String {
    let attributes = r#"{"image":"busybox","name":"job","exitCode":"3"}"#;
    let attributes = if action == "die" { attributes } else { r#"{"image":"busybox","name":"job"}"# };
    format!(
        "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"ab12\",\"Attributes\":{attributes}}},\"timeNano\":{time_ns}}}\n"
    )
}

fn soon() -> i64 {
    mayfly_history::now() + 3_600_000_000_000
}

/// Follows until `enough` of the reports, or until the source ends.
async fn follow(fake: &Fake, source: &mut impl Source, enough: impl Fn(&[Report]) -> bool) -> (Vec<Report>, Result<(), SourceError>) {
    let stop = CancellationToken::new();
    let mut reports = Vec::new();
    let following = source.follow(stop.clone());
    let mut following = std::pin::pin!(following);
    let outcome = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            tokio::select! {
                outcome = &mut following => break outcome,
                () = tokio::time::sleep(Duration::from_millis(2)) => {
                    reports.extend(fake.sinks.containers.drain(100).into_iter().map(|received| received.item));
                    if enough(&reports) {
                        stop.cancel();
                    }
                }
            }
        }
    });
    let outcome = outcome.await.expect("enough reports, or an end");
    reports.extend(fake.sinks.containers.drain(100).into_iter().map(|received| received.item));
    (reports, outcome)
}

fn actions(reports: &[Report]) -> Vec<Action> {
    reports.iter().filter_map(|r| if let Report::Event(event) = r { Some(event.action) } else { None }).collect()
}

#[tokio::test]
async fn what_was_lost_behind_it_makes_it_list_all_again() {
    let fake = Fake::with_events(|| Answer::Open(String::new()));
    let (mut source, feed) = (fake.source(), fake.feed.clone());
    let snapshots = |reports: &[Report]| -> Vec<_> {
        reports.iter().filter_map(|r| if let Report::Snapshot(snapshot) = r { Some(snapshot.blind_since) } else { None }).collect()
    };
    let (reports, outcome) = follow(&fake, &mut source, |reports| {
        if snapshots(reports) == [None] {
            feed.want_resync(7);
        }
        snapshots(reports).len() == 2
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(snapshots(&reports), [None, Some(7)]);
    assert_eq!(feed.take_gaps(), [], "the recorder tells of the gap");
}

#[tokio::test]
async fn events_details_and_the_list_all_arrive() {
    let at = soon();
    let fake = Fake::with_events(move || Answer::Open(event("create", at) + &event("die", at + 1)));
    let details = |r: &Report| matches!(r, Report::Details { details, .. } if details.name.is_some());
    let snapshot = |r: &Report| matches!(r, Report::Snapshot(_));
    let (reports, outcome) = follow(&fake, &mut fake.source(), |r| r.len() >= 4 && r.iter().any(details) && r.iter().any(snapshot)).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(actions(&reports), [Action::Create, Action::Die]);
    let Report::Event(create) = &reports[0] else { panic!() };
    assert_eq!((create.settled, create.recovered), (create.details.image_id.is_some(), false), "its image is asked for");
    assert_eq!((&*create.key.runtime_namespace, create.time_ns), ("moby", at));
    let mut inspected = false;
    for report in &reports {
        match report {
            Report::Event(event) if event.action == Action::Die => assert_eq!(event.details.run.exit_code, Some(3)),
            Report::Details { details, .. } => {
                assert_eq!((details.image_id.as_deref(), details.image_digest.as_deref()), (Some("sha256:d5"), Some("sha256:99")));
                inspected |= details.run.ip_addresses == ["172.17.0.2"];
            }
            Report::Snapshot(snapshot) => {
                assert_eq!((snapshot.blind_since, snapshot.containers.len()), (None, 1), "nobody looked before");
                assert_eq!(snapshot.containers[0].1, State::Running);
            }
            Report::Event(_) => {}
        }
    }
    assert!(inspected);
    assert_eq!(fake.feed.status().state, "running");
}

#[tokio::test]
async fn nonsense_is_an_error_that_says_what_came() {
    let cases: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "answered /version with something else than expected"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 18\r\n\r\n{\"message\":\"busy\"}", "refused /version with status 500: busy"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke off /version"),
        (b"", "broke off /version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"ApiVersion\":", "broke off /version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]", "answered /version with something else than expected"),
    ];
    for (answer, expected) in cases {
        let fake = Fake::new(move |_| Answer::Raw(answer.to_vec()));
        let (reports, outcome) = follow(&fake, &mut fake.source(), |_| false).await;
        let error = crate::error::chain(&outcome.expect_err("an error"));
        assert!(error.contains(expected), "{error}");
        assert!(reports.is_empty());
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let fake = Fake::new(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(17 << 20, b' ');
        Answer::Raw(answer)
    });
    let (_, outcome) = follow(&fake, &mut fake.source(), |_| false).await;
    let error = crate::error::chain(&outcome.expect_err("an error"));
    assert!(error.contains("longer than"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_the_rest_goes_on() {
    let at = soon();
    let fake = Fake::with_events(move || {
        let huge = format!("{{\"Type\":\"container\",\"x\":\"{}\"}}\n", "x".repeat(5 << 20));
        let strange = "{\"Type\":\"hologram\",\"Action\":\"x\"}\n{\"Type\":7}\n\u{0}\n";
        Answer::Open(event("create", at) + strange + &huge + &event("die", at + 1))
    });
    let (reports, outcome) = follow(&fake, &mut fake.source(), |r| actions(r).len() >= 2).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(actions(&reports), [Action::Create, Action::Die]);
    assert_eq!(fake.feed.status().rejected, 3, "{}", fake.feed.status().last_error);
}

#[tokio::test]
async fn one_unreadable_container_does_not_hide_that_it_is_there() {
    let fake = Fake::new(|path| match path {
        path if path.contains("/events?") => Answer::Open(String::new()),
        path if path.contains("/containers/ab12") => Answer::Json("[[[".into()),
        path => Answer::Json(usual(path).into()),
    });
    let (reports, _) = follow(&fake, &mut fake.source(), |r| !r.is_empty()).await;
    let Some(Report::Snapshot(snapshot)) = reports.first() else { panic!("{reports:?}") };
    let (key, state, details) = &snapshot.containers[0];
    assert_eq!((&*key.container_id, *state, details.name.as_deref()), ("ab12", State::Running, Some("job")));
}

/// Breaks off after the list was answered, in the midst of a line; then answers `again`.
async fn broken(again: impl Fn(i64) -> String + Send + Sync + 'static) -> (Fake, Vec<Report>, i64) {
    let first = mayfly_history::now() + 50_000_000;
    let sessions = AtomicUsize::new(0);
    let fake = Fake::new(move |path| match path {
        "/version" => Answer::Json(VERSION.into()),
        path if path.contains("/events?") => match sessions.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Open(event("create", first)),
            _ => Answer::Open(again(first)),
        },
        path => Answer::Json(usual(path).into()),
    });
    let mut source = fake.source();
    let both = |r: &[Report]| r.iter().any(|r| matches!(r, Report::Snapshot(_))) && !actions(r).is_empty();
    let (_, outcome) = follow(&fake, &mut source, both).await;
    assert!(outcome.is_ok());
    // The replay is of the time before the second session.
    while mayfly_history::now() <= first + 1_000_000 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (reports, _) = follow(&fake, &mut source, |r| r.iter().any(|r| matches!(r, Report::Snapshot(_)))).await;
    (fake, reports, first)
}

#[tokio::test]
async fn a_stream_resumes_before_the_last_event_and_says_what_came_back() {
    let (fake, reports, first) = broken(|first| event("create", first) + &event("die", first + 1_000_000)).await;
    assert_eq!(actions(&reports), [Action::Create, Action::Die]);
    assert!(reports.iter().all(|r| if let Report::Event(event) = r { event.recovered } else { true }));
    let Some(Report::Snapshot(snapshot)) = reports.iter().find(|r| matches!(r, Report::Snapshot(_))) else { panic!() };
    assert!(snapshot.blind_since.is_some_and(|since| since > first - 50_000_000));
    let since = format!("/events?since={}.", (first - 1_000_000_000).div_euclid(1_000_000_000));
    assert!(fake.asked.lock().unwrap().iter().any(|path| path.contains(&since)), "{since} {:?}", fake.asked);
    let gaps = fake.feed.take_gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].cause.as_str(), gaps[0].recovered), ("daemon_down", 2));
    assert!(gaps[0].to_ns.is_some() && gaps[0].detail.contains("reaches back"), "{gaps:?}");
}

#[tokio::test]
async fn a_backlog_that_begins_too_late_is_said_to() {
    let (fake, _, _) = broken(|first| event("die", first + 1_000_000)).await;
    let gaps = fake.feed.take_gaps();
    assert!(gaps[0].detail.contains("begins after the last event"), "{gaps:?}");
}

#[tokio::test]
async fn a_broken_stream_opens_a_gap() {
    let at = soon();
    let sessions = AtomicUsize::new(0);
    let fake = Fake::new(move |path| match path {
        path if path.contains("/events?") => {
            sessions.fetch_add(1, Ordering::SeqCst);
            Answer::Open(event("create", at))
        }
        path => Answer::Json(usual(path).into()),
    });
    let mut source = fake.source();
    let stop = CancellationToken::new();
    let following = source.follow(stop);
    let killed = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !fake.sinks.containers.drain(9).iter().any(|r| matches!(r.item, Report::Snapshot(_))) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::fs::remove_file(fake.socket()).unwrap();
        fake.hang_up();
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! { outcome = following => outcome, () = killed => unreachable!() };
    assert!(matches!(outcome, Err(SourceError::Closed { events: 1, .. } | SourceError::Broken { .. })), "{outcome:?}");
    let gaps = fake.feed.take_gaps();
    assert_eq!((gaps.len(), gaps[0].to_ns), (1, None), "it lasts");
}

fn create_of(id: &str, image: &str, at: i64) -> String {
    event("create", at).replace("ab12", id).replace("busybox", image)
}

/// A daemon whose containers are gone when they are inspected.
fn hasty(images: &'static str) -> Fake {
    let at = soon();
    Fake::new(move |path| match path {
        path if path.contains("/events?") => Answer::Open(create_of("c0", "busybox", at)),
        path if path.contains("/containers/c") => Answer::Raw(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        path if path.ends_with("/images/json") => Answer::Json(images.into()),
        path => Answer::Json(usual(path).into()),
    })
}

/// The image id and digest that were told of a container, in whichever report.
fn image_of<'r>(reports: &'r [Report], id: &str) -> Option<(&'r str, Option<&'r str>)> {
    reports.iter().find_map(|report| {
        let (key, details) = match report {
            Report::Event(event) => (&event.key, &event.details),
            Report::Details { key, details, .. } => (key, &**details),
            Report::Snapshot(_) => return None,
        };
        let image_id = details.image_id.as_deref().filter(|_| &*key.container_id == id)?;
        Some((image_id, details.image_digest.as_deref()))
    })
}

#[tokio::test]
async fn a_create_has_its_image_before_any_inspect() {
    let fake = hasty("[]");
    let known = std::cell::Cell::new(false);
    let (reports, outcome) = follow(&fake, &mut fake.source(), |reports| {
        if image_of(reports, "c0").is_some() && !known.replace(true) {
            let at = soon();
            fake.tell((1..=20).map(|n| create_of(&format!("c{n}"), "docker.io/library/busybox:latest", at + n)).collect());
        }
        actions(reports).len() > 20
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let Report::Event(first) = &reports[0] else { panic!("{reports:?}") };
    assert!(!first.settled || first.details.image_id.is_some(), "the image is asked for");
    assert_eq!(image_of(&reports, "c0"), Some(("sha256:d5", Some("sha256:99"))));
    let later = reports.iter().filter_map(|r| if let Report::Event(event) = r { Some(event) } else { None }).skip(1);
    for event in later {
        assert!(!event.settled, "its command is asked for: {event:?}");
        assert_eq!(event.details.image_id.as_deref(), Some("sha256:d5"));
        assert_eq!(event.details.image_digest.as_deref(), Some("sha256:99"));
    }
    let asked = fake.asked.lock().unwrap().iter().filter(|path| path.contains("/images/busybox/")).count();
    assert!(asked <= 2, "once as a reference, at most once more where the container was gone: {asked}");
}

#[tokio::test]
async fn an_event_of_an_image_makes_its_name_be_asked_again() {
    let fake = hasty(super::fake::IMAGES);
    let asks = || fake.asked.lock().unwrap().iter().filter(|path| path.contains("/images/busybox/")).count();
    let before = std::cell::Cell::new(None);
    let (_, outcome) = follow(&fake, &mut fake.source(), |reports| {
        if image_of(reports, "c0").is_some() && before.get().is_none() {
            before.set(Some(asks()));
            let pull = r#"{"Type":"image","Action":"pull","Actor":{"ID":"busybox:latest","Attributes":{}},"timeNano":7}"#;
            fake.tell(format!("{pull}\n{}", create_of("c1", "busybox", soon())));
        }
        before.get().is_some_and(|before| asks() > before) && image_of(reports, "c1").is_some()
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(fake.sinks.images.drain(9).len(), 1);
}

#[tokio::test]
async fn at_the_first_look_a_clock_that_is_behind_loses_nothing() {
    let fake = Fake::with_events(|| Answer::Open(event("create", 1_000) + &event("die", 2_000)));
    let (reports, outcome) = follow(&fake, &mut fake.source(), |r| actions(r).len() >= 2).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(reports.iter().all(|r| if let Report::Event(event) = r { !event.recovered } else { true }), "they are live");
    assert!(fake.asked.lock().unwrap().iter().all(|path| !path.contains("since=")), "{:?}", fake.asked);
}

#[tokio::test]
async fn an_event_of_an_image_outlives_the_session_that_asks_for_it() {
    let pull = r#"{"Type":"image","Action":"pull","Actor":{"ID":"slow:1","Attributes":{}},"timeNano":7}"#;
    let at = soon();
    let fake = Fake::new(move |path| match path {
        path if path.contains("/events?") => Answer::Open(format!("{pull}\n{}", event("die", at))),
        path if path.contains("/images/slow") => Answer::Open(String::new()),
        path => Answer::Json(usual(path).into()),
    });
    let (reports, outcome) = follow(&fake, &mut fake.source(), |r| !actions(r).is_empty()).await;
    assert!(outcome.is_ok() && actions(&reports) == [Action::Die], "{outcome:?}");
    let told: Vec<_> = fake.sinks.images.drain(9).into_iter().map(|received| received.item).collect();
    assert_eq!((told.len(), told[0].action, told[0].image_id.as_deref()), (1, "pull", None), "{told:?}");
}
