//! What the kernel tells beside a runtime, before it, and alone.

use super::{Bench, MS, S, T0, docker, event, exit, pid, with_run};
use crate::{
    container::{Action, ContainerEvent, ContainerKey, Details, Report, Run, Snapshot, State, Witness},
    time::Nanos,
};

/// As the kernel calls a container: by its id, and what the path of its cgroup tells of the namespace.
fn kernels(key: &ContainerKey) -> ContainerKey {
    ContainerKey { endpoint: "".into(), ..key.clone() }
}

fn kernel(key: &ContainerKey, action: Action, time_ns: Nanos, run: Run) -> ContainerEvent {
    ContainerEvent { settled: false, ..with_run(event(&kernels(key), Witness::Ebpf, action, time_ns), run) }
}

fn ended(id: i64, code: i64) -> Run {
    Run { pid: Some(id), ..exit(code) }
}

/// One life as the kernel tells it.
fn life(key: &ContainerKey, at: Nanos) -> Vec<ContainerEvent> {
    vec![
        kernel(key, Action::Create, at + 50 * MS, Run::default()),
        kernel(key, Action::Start, at + 100 * MS, pid(7)),
        kernel(key, Action::Die, at + 150 * MS, ended(7, 3)),
        kernel(key, Action::Destroy, at + 160 * MS, Run::default()),
    ]
}

/// The same life as its runtime tells it.
fn reported(key: &ContainerKey, witness: Witness, at: Nanos) -> Vec<ContainerEvent> {
    let image = |mut event: ContainerEvent| {
        event.details.image = Some("busybox".into());
        event
    };
    vec![
        image(event(key, witness, Action::Create, at)),
        image(with_run(event(key, witness, Action::Start, at + 101 * MS), pid(7))),
        image(with_run(event(key, witness, Action::Die, at + 155 * MS), exit(3))),
        image(event(key, witness, Action::Destroy, at + 200 * MS)),
    ]
}

fn list(bench: &mut Bench, blind_since: Option<Nanos>, keys: &[ContainerKey]) {
    let details = Details { run: pid(7), ..Details::default() };
    let snapshot = Snapshot {
        endpoint: "".into(),
        runtime_namespace: "".into(),
        witness: Witness::Ebpf,
        taken_ns: bench.wall_ns,
        blind_since,
        containers: keys.iter().map(|key| (kernels(key), State::Running, details.clone())).collect(),
    };
    bench.push(Report::Snapshot(Box::new(snapshot)));
}

const LIFE: [Action; 4] = [Action::Create, Action::Start, Action::Die, Action::Destroy];

fn actions(bench: &Bench, key: &ContainerKey) -> Vec<Action> {
    bench.told(key).into_iter().map(|(action, _)| action).collect()
}

#[test]
fn a_container_that_a_runtime_reports_has_one_life_with_both_as_evidence() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    let mut events = [life(&key, T0), reported(&key, Witness::Docker, T0)].concat();
    events.sort_by_key(|e| e.time_ns);
    bench.live(events);
    bench.finish();
    assert_eq!(actions(&bench, &key), LIFE);
    assert!(bench.rows.iter().all(|told| told.event.source == Witness::Docker && told.event.key == key));
    let running = bench.spans(&key).into_iter().find(|span| span.state == State::Running).unwrap();
    assert_eq!(running.evidence, "docker,ebpf");
}

#[test]
fn a_container_that_nobody_reports_is_the_kernels() {
    let (mut bench, key) = (Bench::new(), kernels(&docker("c1")));
    bench.live(life(&key, T0));
    bench.finish();
    assert_eq!(actions(&bench, &key), LIFE);
    let die = bench.row(&key, Action::Die);
    assert_eq!((die.source, die.details.run.exit_code, die.lifetime_ms), (Witness::Ebpf, Some(3), Some(50)));
    assert_eq!(bench.history(&key)[1], (State::Running, T0 + 100 * MS, Some(T0 + 150 * MS), "exited"));
}

#[test]
fn a_death_that_only_the_kernel_tells_is_not_before_the_start_that_the_runtime_told() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    let mut events = [life(&key, T0), reported(&key, Witness::Docker, T0)].concat();
    // Docker tells of the start after the end, and of the end never.
    events.retain(|e| !(e.source == Witness::Docker && matches!(e.action, Action::Die | Action::Destroy)));
    let start = events.iter_mut().find(|e| e.source == Witness::Docker && e.action == Action::Start).unwrap();
    start.time_ns = T0 + 170 * MS;
    events.sort_by_key(|e| e.time_ns);
    bench.live(events);
    bench.finish();
    let told = bench.told(&key);
    assert_eq!(told, [(Action::Create, T0), (Action::Start, T0 + 170 * MS), (Action::Die, T0 + 170 * MS)]);
}

#[test]
fn a_runtime_that_is_late_within_the_wait_tells_it_alone() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    bench.live(life(&key, T0));
    bench.until(T0 + 700 * MS);
    for event in reported(&key, Witness::Docker, T0) {
        bench.push(Report::Event(Box::new(event)));
    }
    bench.finish();
    assert_eq!(actions(&bench, &key), LIFE);
    assert!(bench.rows.iter().all(|told| told.event.source == Witness::Docker));
    assert!(bench.spans(&kernels(&key)).is_empty());
}

#[test]
fn a_runtime_that_is_later_takes_over_the_life_and_tells_nothing_again() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    bench.live(life(&key, T0).into_iter().take(2));
    bench.until(T0 + 5 * S);
    assert_eq!(actions(&bench, &kernels(&key)), [Action::Create, Action::Start]);
    for event in reported(&key, Witness::Docker, T0).into_iter().take(2) {
        bench.push(Report::Event(Box::new(event)));
    }
    bench.finish();
    assert!(bench.told(&key).is_empty(), "both were told by the kernel: {:?}", bench.told(&key));
    assert_eq!(bench.spans(&key).last().unwrap().state, State::Running);
    assert!(bench.ledger.subject(&kernels(&key)).is_none());
}

#[test]
fn a_removal_that_was_the_cgroups_is_undone_by_a_runtime_that_still_has_the_container() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    bench.live(life(&key, T0));
    bench.until(T0 + 5 * S);
    let run = Run { started_ns: Some(T0 + 101 * MS), finished_ns: Some(T0 + 155 * MS), ..ended(7, 3) };
    let details = Details { created_ns: Some(T0), run, ..Details::default() };
    bench.list(&key, Some(T0), vec![(key.clone(), State::Exited, details)]);
    bench.finish();
    assert_eq!(bench.history(&key).last().unwrap().0, State::Exited);
    assert_eq!(bench.history(&key).last().unwrap().2, None, "it is still there");
    assert!(bench.told(&key).iter().all(|(action, _)| *action == Action::Existing), "{:?}", bench.told(&key));
}

#[test]
fn a_cgroup_that_comes_and_goes_with_a_run_neither_makes_nor_removes_a_known_container() {
    let (mut bench, key) = (Bench::new(), docker("c1"));
    bench.live(reported(&key, Witness::Docker, T0).into_iter().take(3));
    bench.until(T0 + 20 * S);
    bench.live(life(&key, T0 + 20 * S).into_iter().map(|event| match event.action {
        Action::Start => with_run(event, pid(8)),
        Action::Die => with_run(event, ended(8, 0)),
        _ => event,
    }));
    bench.finish();
    assert_eq!(actions(&bench, &key), [Action::Create, Action::Start, Action::Die, Action::Start, Action::Die]);
    assert_eq!(bench.rows.last().unwrap().event.source, Witness::Ebpf, "only the kernel told of the second run");
}

#[test]
fn two_containers_of_one_id_are_not_told_apart_by_the_kernel_and_get_nothing() {
    let (mut bench, one) = (Bench::new(), docker("c1"));
    let other = ContainerKey { endpoint: "unix:///other.sock".into(), ..one.clone() };
    for key in [&one, &other] {
        bench.live(reported(key, Witness::Docker, T0).into_iter().take(1));
    }
    bench.live(life(&one, T0));
    bench.finish();
    assert_eq!((actions(&bench, &one), actions(&bench, &other)), (vec![Action::Create], vec![Action::Create]));
    assert!(bench.told(&kernels(&one)).is_empty());
}

#[test]
fn an_id_that_came_back_is_a_container_of_its_own() {
    let (mut bench, key) = (Bench::new(), docker("web"));
    bench.live(reported(&key, Witness::Docker, T0));
    bench.until(T0 + 3 * S);
    let mut events = [life(&key, T0 + 3 * S), reported(&key, Witness::Docker, T0 + 3 * S)].concat();
    // The kernel is the first to tell of the second.
    events.sort_by_key(|e| e.time_ns + if e.action == Action::Create && e.source == Witness::Docker { 60 * MS } else { 0 });
    bench.live(events);
    bench.finish();
    assert_eq!(actions(&bench, &key), [LIFE, LIFE].concat());
    assert!(bench.rows.iter().all(|told| told.event.source == Witness::Docker));
}

#[test]
fn what_runs_when_recording_begins_is_found_once() {
    let (mut bench, known, alone) = (Bench::new(), docker("c1"), docker("c2"));
    list(&mut bench, None, &[known.clone(), alone.clone()]);
    let details = Details { created_ns: Some(T0 - S), ..Details::default() };
    bench.list(&known, None, vec![(known.clone(), State::Running, details)]);
    bench.finish();
    assert_eq!((actions(&bench, &known), actions(&bench, &kernels(&alone))), (vec![Action::Existing], vec![Action::Existing]));
    assert!(bench.told(&kernels(&known)).is_empty());
}

#[test]
fn what_only_the_kernel_knew_and_lists_no_more_ended_when_nobody_looked() {
    let (mut bench, key) = (Bench::new(), kernels(&docker("c1")));
    bench.live(life(&key, T0).into_iter().take(2));
    bench.until(T0 + 60 * S);
    list(&mut bench, Some(T0 + 30 * S), &[]);
    bench.finish();
    let last = *bench.history(&key).last().unwrap();
    assert_eq!((last.0, last.2, last.3), (State::Running, Some(T0 + 60 * S), "unknown"));
}
