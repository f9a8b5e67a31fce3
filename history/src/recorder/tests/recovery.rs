//! What a list of all containers brings back after a gap, and what it must not invent.

use super::*;
use crate::{Redaction, recorder::clean};

fn listed(created_ns: Nanos, run: Run) -> Details {
    Details { image: Some("busybox:test".into()), created_ns: Some(created_ns), run, ..Details::default() }
}

fn ran(started_ns: Nanos, finished_ns: Nanos, exit_code: i64) -> Run {
    Run { started_ns: Some(started_ns), finished_ns: Some(finished_ns), exit_code: Some(exit_code), ..Run::default() }
}

#[test]
fn at_the_first_look_what_is_there_is_existing_and_its_past_is_history() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let run = Run { started_ns: Some(T0 - 3000 * S), pid: Some(9), ..Run::default() };
    bench.list(&key, None, vec![(key.clone(), State::Running, listed(T0 - 3600 * S, run))]);
    bench.finish();
    let existing = bench.row(&key, Action::Existing);
    assert_eq!((existing.source, existing.recovered, existing.details.run.pid), (Witness::Docker, false, Some(9)));
    assert_eq!(
        bench.history(&key),
        [(State::Created, T0 - 3600 * S, Some(T0 - 3000 * S), "started"), (State::Running, T0 - 3000 * S, None, "")]
    );
    // The next gap, an hour later, brings nothing new.
    bench.until(T0 + 3600 * S);
    let run = Run { started_ns: Some(T0 - 3000 * S), pid: Some(9), ..Run::default() };
    bench.list(&key, Some(T0 + 3500 * S), vec![(key.clone(), State::Running, listed(T0 - 3600 * S, run))]);
    bench.finish();
    assert_eq!(bench.rows.len(), 1);
}

#[test]
fn what_has_ended_at_the_first_look_tells_how() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let run = Run { pid: Some(9), ..ran(T0 - 3000 * S, T0 - 2000 * S, 7) };
    bench.list(&key, None, vec![(key.clone(), State::Exited, listed(T0 - 3600 * S, run))]);
    bench.finish();
    let run = &bench.row(&key, Action::Existing).details.run;
    assert_eq!((run.exit_code, run.finished_ns, run.pid), (Some(7), Some(T0 - 2000 * S), None), "its process is no more");
}

#[test]
fn a_container_whose_task_is_gone_has_died() {
    let key = kubernetes("c1");
    let mut bench = Bench::new();
    bench.live([event(&key, Witness::Containerd, Action::Create, T0), event(&key, Witness::Containerd, Action::Start, T0 + S)]);
    bench.until(T0 + 60 * S);
    bench.list(&key, Some(T0 + 10 * S), vec![(key.clone(), State::Created, listed(T0, Run::default()))]);
    bench.finish();
    let die = bench.row(&key, Action::Die);
    assert_eq!((die.time_ns, die.recovered, die.details.run.exit_code), (T0 + 60 * S, true, None));
    assert_eq!(bench.history(&key).last(), Some(&(State::Exited, T0 + 60 * S, None, "")));
}

#[test]
fn after_a_gap_each_missed_event_is_there_with_the_runtimes_own_time() {
    let (known, new) = (docker("known"), docker("new"));
    let mut bench = Bench::new();
    bench.live([event(&known, Witness::Docker, Action::Create, T0), event(&known, Witness::Docker, Action::Start, T0 + S)]);
    bench.until(T0 + 60 * S);
    let blind = Some(T0 + 10 * S);
    bench.list(
        &known,
        blind,
        vec![
            (known.clone(), State::Exited, listed(T0, ran(T0 + S, T0 + 20 * S, 137))),
            (new.clone(), State::Exited, listed(T0 + 30 * S, ran(T0 + 31 * S, T0 + 32 * S, 0))),
        ],
    );
    bench.finish();
    let die = bench.row(&known, Action::Die);
    assert_eq!((die.time_ns, die.recovered, die.source), (T0 + 20 * S, true, Witness::Reconcile));
    assert_eq!((die.details.run.exit_code, die.details.run.signal, die.lifetime_ms), (Some(137), Some(9), Some(19_000)));
    assert_eq!(bench.told(&known).len(), 3, "create and start were told before the gap");
    assert_eq!(bench.told(&new), [(Action::Create, T0 + 30 * S), (Action::Start, T0 + 31 * S), (Action::Die, T0 + 32 * S)]);
    assert_eq!(bench.spans(&new)[1].evidence, "reconcile");
}

#[test]
fn a_restart_within_the_gap_is_told_as_far_as_the_runtime_knows() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([event(&key, Witness::Docker, Action::Create, T0), event(&key, Witness::Docker, Action::Start, T0 + S)]);
    bench.until(T0 + 60 * S);
    let run = Run { started_ns: Some(T0 + 40 * S), finished_ns: Some(T0 + 39 * S), pid: Some(5), ..Run::default() };
    bench.list(&key, Some(T0 + 10 * S), vec![(key.clone(), State::Running, listed(T0, run))]);
    bench.finish();
    assert_eq!(bench.told(&key)[2..], [(Action::Die, T0 + 39 * S), (Action::Start, T0 + 40 * S)]);
    assert_eq!(bench.row(&key, Action::Die).details.run.exit_code, None, "nobody knows it any more");
    assert_eq!(bench.history(&key).last(), Some(&(State::Running, T0 + 40 * S, None, "")));
}

#[test]
fn what_vanished_in_the_gap_is_closed_as_unknown_and_no_event_is_invented() {
    let (gone, young) = (docker("gone"), docker("young"));
    let mut bench = Bench::new();
    bench.live([event(&gone, Witness::Docker, Action::Create, T0), event(&gone, Witness::Docker, Action::Start, T0 + S)]);
    bench.until(T0 + 60 * S);
    bench.push(Report::Event(Box::new(event(&young, Witness::Docker, Action::Create, T0 + 60 * S))));
    bench.list(&gone, Some(T0 + 10 * S), Vec::new());
    bench.until(T0 + 62 * S);
    assert_eq!(bench.told(&gone).len(), 2);
    assert_eq!(bench.history(&gone).last(), Some(&(State::Running, T0 + S, Some(T0 + 60 * S), "unknown")));
    assert_eq!(bench.history(&young), [(State::Created, T0 + 60 * S, None, "")], "younger than the list");
    // The replay that comes late knows better.
    bench.live([
        with_run(event(&gone, Witness::Docker, Action::Die, T0 + 50 * S), exit(1)),
        event(&gone, Witness::Docker, Action::Destroy, T0 + 51 * S),
    ]);
    bench.until(T0 + 63 * S);
    assert_eq!(
        bench.history(&gone)[1..],
        [(State::Running, T0 + S, Some(T0 + 50 * S), "exited"), (State::Exited, T0 + 50 * S, Some(T0 + 51 * S), "destroyed")]
    );
}

#[test]
fn the_stream_that_follows_a_list_tells_the_same_events_better() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.until(T0 + 2 * S);
    let run = Run { started_ns: Some(T0 + 1900 * MS), ..Run::default() };
    bench.list(&key, Some(T0), vec![(key.clone(), State::Running, listed(T0 + 1800 * MS, run))]);
    bench.live([event(&key, Witness::Docker, Action::Create, T0 + 1810 * MS), event(&key, Witness::Docker, Action::Start, T0 + 1910 * MS)]);
    bench.finish();
    assert_eq!(bench.told(&key), [(Action::Create, T0 + 1810 * MS), (Action::Start, T0 + 1910 * MS)]);
    assert!(bench.rows.iter().all(|t| !t.event.recovered && t.event.source == Witness::Docker));
}

#[test]
fn a_container_created_while_the_first_look_is_taken_is_told_as_created() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.until(T0 + S);
    bench.list(&key, None, vec![(key.clone(), State::Created, listed(T0 + 990 * MS, Run::default()))]);
    bench.live([event(&key, Witness::Docker, Action::Create, T0 + 995 * MS)]);
    bench.finish();
    assert_eq!(bench.told(&key), [(Action::Create, T0 + 995 * MS)]);
}

#[test]
fn a_recorder_that_was_killed_takes_up_where_its_subjects_are() {
    let (before, during) = (docker("before"), docker("during"));
    let mut killed = Bench::new();
    killed.live([event(&before, Witness::Docker, Action::Create, T0), event(&before, Witness::Docker, Action::Start, T0 + S)]);
    killed.until(T0 + 3 * S);
    let kept = serde_json::to_vec(killed.ledger.subject(&before).unwrap()).unwrap();

    let mut bench = Bench::new();
    bench.until(T0 + 10 * S);
    let moment = bench.moment();
    bench.ledger.restore(serde_json::from_slice(&kept).unwrap(), moment);
    // Docker's replay overlaps what was stored, then the list, both with what is new.
    let replayed = |key: &ContainerKey, action, at| ContainerEvent { recovered: true, ..event(key, Witness::Docker, action, at) };
    bench.live([replayed(&before, Action::Start, T0 + S), replayed(&during, Action::Create, T0 + 5 * S)]);
    let during_run = ran(T0 + 6 * S, T0 + 7 * S, 3);
    bench.list(
        &before,
        Some(T0 + 2 * S),
        vec![
            (before.clone(), State::Exited, listed(T0, ran(T0 + S, T0 + 8 * S, 0))),
            (during.clone(), State::Exited, listed(T0 + 5 * S, during_run)),
        ],
    );
    bench.finish();
    assert_eq!(bench.told(&before), [(Action::Die, T0 + 8 * S)]);
    assert_eq!(bench.told(&during), [(Action::Create, T0 + 5 * S), (Action::Start, T0 + 6 * S), (Action::Die, T0 + 7 * S)]);
    assert!(bench.rows.iter().all(|t| t.event.recovered));
    assert_eq!(bench.row(&during, Action::Die).details.run.exit_code, Some(3));
}

#[test]
fn a_list_by_containerd_says_nothing_of_dockers_stopped_containers() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([event(&key, Witness::Docker, Action::Create, T0)]);
    bench.until(T0 + 5 * S);
    let snapshot = Snapshot {
        endpoint: key.endpoint.clone(),
        runtime_namespace: key.runtime_namespace.clone(),
        witness: Witness::Containerd,
        taken_ns: T0 + 5 * S,
        blind_since: Some(T0 + S),
        containers: Vec::new(),
    };
    bench.push(Report::Snapshot(Box::new(snapshot)));
    bench.finish();
    assert_eq!(bench.history(&key), [(State::Created, T0, None, "")]);
}

#[test]
fn an_event_of_the_future_that_is_replayed_is_the_same_event() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let told = |wall_ns: Nanos| {
        let mut report = Report::Event(Box::new(event(&key, Witness::Docker, Action::Start, T0 + 3600 * S)));
        clean::report(&mut report, &Redaction::default(), wall_ns);
        report
    };
    bench.push(told(T0));
    bench.until(T0 + 60 * S);
    bench.push(told(T0 + 60 * S));
    bench.until(T0 + 7200 * S);
    bench.push(told(T0 + 7200 * S));
    bench.finish();
    assert_eq!(bench.row(&key, Action::Start).time_ns, T0 + 2 * S);
}
