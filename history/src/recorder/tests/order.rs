//! Order does not matter: any permutation of the same evidence gives the same intervals and the same events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::subject::Via, *};

/// What one witness reports of a container.
#[derive(Clone, Debug)]
enum Said {
    Event(ContainerEvent),
    Details(Witness, Details),
}

fn run_facts(n: i64, started_ns: Nanos) -> Run {
    Run { started_ns: Some(started_ns), pid: Some(1000 + n), ip_addresses: vec![format!("10.0.0.{}", n + 1)], ..Run::default() }
}

/// A container that Docker and containerd both see: some runs, a pause in some of them, perhaps its removal.
fn life(key: ContainerKey) -> impl Strategy<Value = Vec<Said>> {
    let run = (1i64..3000, 1i64..5000, 0i64..20, 0i64..20, any::<bool>(), any::<bool>(), any::<bool>());
    (prop::collection::vec(run, 0..5), any::<bool>(), 0i64..50).prop_map(move |(runs, is_removed, lag)| {
        let mut said = vec![Said::Event(event(&key, Witness::Docker, Action::Create, T0))];
        let mut now = T0 + 10 * MS;
        for (n, (pause, lasts, start_lag, die_lag, is_inspected, is_paused, is_silent)) in (0i64..).zip(runs) {
            let (start, end) = (now + pause * MS, now + (pause + lasts) * MS);
            let die = end + (die_lag + lag) * MS;
            said.push(Said::Event(with_run(event(&key, Witness::Containerd, Action::Start, start), pid(1000 + n))));
            said.push(Said::Event(with_run(
                event(&key, Witness::Containerd, Action::Die, end),
                Run { exit_code: Some(n), ..pid(1000 + n) },
            )));
            // Docker hears of the end from containerd, after it told of the start.
            if !is_silent {
                said.push(Said::Event(event(&key, Witness::Docker, Action::Start, start + start_lag * MS)));
                said.push(Said::Event(with_run(event(&key, Witness::Docker, Action::Die, die.max(start + start_lag * MS + 1)), exit(n))));
            }
            if is_inspected {
                said.push(Said::Details(
                    Witness::Docker,
                    Details { name: Some("web".into()), run: run_facts(n, start + 1), ..Details::default() },
                ));
            }
            if is_paused && lasts > 300 {
                said.push(Said::Event(event(&key, Witness::Containerd, Action::Pause, start + 100 * MS)));
                said.push(Said::Event(event(&key, Witness::Docker, Action::Pause, start + 101 * MS)));
                said.push(Said::Event(event(&key, Witness::Docker, Action::Unpause, start + 201 * MS)));
            }
            now = die.max(start + start_lag * MS) + 2 * MS;
        }
        if is_removed {
            said.push(Said::Event(event(&key, Witness::Docker, Action::Destroy, now + MS)));
        }
        said
    })
}

fn shuffled() -> impl Strategy<Value = (Vec<Said>, Vec<Said>)> {
    life(docker("c1")).prop_flat_map(|said| {
        // Each thing once, and some of them again.
        let again = prop::collection::vec(prop::sample::select(said.clone()), 0..4);
        let all = (Just(said.clone()), again).prop_map(|(said, again)| said.into_iter().chain(again).collect::<Vec<_>>());
        (Just(said), all.prop_shuffle())
    })
}

fn subject_of(said: &[Said]) -> Subject {
    let mut subject = Subject::new(docker("c1"));
    for said in said {
        match said {
            Said::Event(event) => drop(subject.see(event)),
            Said::Details(witness, details) => subject.learn(*witness, Via::Inspect, details),
        }
    }
    subject
}

/// Which event each row stands for: its action, and which one of these by time.
fn identities(bench: &Bench) -> BTreeSet<(Action, usize)> {
    let mut rows = bench.told(&docker("c1"));
    rows.sort_by_key(|(_, t)| *t);
    let mut seen = BTreeMap::new();
    rows.into_iter().map(|(action, _)| (action, *seen.entry(action).and_modify(|n| *n += 1).or_insert(0usize))).collect()
}

proptest! {
    #[test]
    fn any_order_gives_the_same_intervals((said, mixed) in shuffled()) {
        let expected = subject_of(&said).intervals();
        prop_assert_eq!(subject_of(&mixed).intervals(), expected.clone());
        for pair in expected.windows(2) {
            prop_assert!(pair[0].to_ns == Some(pair[1].from_ns), "intervals follow on each other: {:?}", pair);
        }
        prop_assert!(expected.iter().all(|s| s.to_ns.is_none_or(|to| to > s.from_ns)));
    }

    #[test]
    fn any_order_gives_each_event_once((said, mixed) in shuffled()) {
        let tell = |said: &[Said]| {
            let mut bench = Bench::new();
            bench.wall_ns = T0 + 60 * S;
            for said in said {
                match said {
                    Said::Event(event) => bench.push(Report::Event(Box::new(event.clone()))),
                    Said::Details(witness, details) => bench.details(&docker("c1"), *witness, details.clone()),
                }
            }
            bench.finish();
            bench
        };
        let (plain, mixed) = (tell(&said), tell(&mixed));
        prop_assert_eq!(identities(&plain), identities(&mixed));
        let runs = said.iter().filter(|s| matches!(s, Said::Event(e) if e.source == Witness::Containerd && e.action == Action::Start)).count();
        for action in [Action::Start, Action::Die] {
            let told = mixed.told(&docker("c1")).iter().filter(|(a, _)| *a == action).count();
            prop_assert_eq!(told, runs, "one {:?} for each run", action);
        }
    }

    #[test]
    fn what_is_kept_survives_a_restart((said, _) in shuffled()) {
        let subject = subject_of(&said);
        let kept = serde_json::to_vec(&subject).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Subject>(&kept).unwrap(), subject);
    }
}

#[test]
fn podman_out_of_order_is_put_in_order() {
    let key = ContainerKey { container_id: "p1".into(), runtime_namespace: "".into(), endpoint: "unix:///run/podman/podman.sock".into() };
    let mut bench = Bench::new();
    bench.wall_ns = T0 + 100 * MS;
    for (action, at) in [(Action::Die, 60), (Action::Create, 0), (Action::Destroy, 80), (Action::Start, 20)] {
        let mut event = event(&key, Witness::Podman, action, T0 + at * MS);
        event.settled = false;
        bench.push(Report::Event(Box::new(event)));
    }
    bench.finish();
    let actions: Vec<_> = bench.told(&key).into_iter().map(|(a, _)| a).collect();
    assert_eq!(actions, [Action::Create, Action::Start, Action::Die, Action::Destroy]);
    assert_eq!(bench.row(&key, Action::Die).lifetime_ms, Some(40));
}

#[test]
fn a_container_that_restarts_for_ever_keeps_bounded_evidence() {
    let key = docker("loop");
    let mut bench = Bench::new();
    for n in 0..2000 {
        let start = T0 + n * 100 * MS;
        bench.live([
            event(&key, Witness::Docker, Action::Start, start),
            with_run(event(&key, Witness::Docker, Action::Die, start + 20 * MS), exit(1)),
        ]);
        bench.live([event(&key, Witness::Docker, Action::HealthStatus, start + 30 * MS)]);
    }
    bench.finish();
    let subject = bench.ledger.subject(&key).unwrap();
    assert!(subject.sightings.len() < 400, "{}", subject.sightings.len());
    let starts = bench.rows.iter().filter(|t| t.event.action == Action::Start).count();
    assert_eq!(starts, 2000, "none is merged with the one before, none is told twice");
    let spans = bench.spans(&key);
    assert!(spans.windows(2).all(|pair| pair[0].to_ns == Some(pair[1].from_ns)));
    assert_eq!(spans.last().map(|s| s.state), Some(State::Exited));
    // A replay of what is final changes nothing and tells nothing.
    let before = bench.rows.len();
    bench.push(Report::Event(Box::new(event(&key, Witness::Docker, Action::Start, T0 + 100 * MS))));
    bench.finish();
    assert_eq!((bench.rows.len(), bench.spans(&key)), (before, spans));
}

#[test]
fn a_die_waits_for_its_exit_code_even_where_the_image_is_known() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let mut start = event(&key, Witness::Docker, Action::Start, T0);
    start.details = Details { image: Some("busybox".into()), image_id: Some("sha256:1".into()), ..Details::default() };
    // The code of an earlier run is not the one that is waited for.
    let again = with_run(event(&key, Witness::Docker, Action::Start, T0 + 10 * S), pid(2));
    bench.live([start, with_run(event(&key, Witness::Docker, Action::Die, T0 + S), exit(1)), again]);
    let mut die = event(&key, Witness::Docker, Action::Die, T0 + 20 * S);
    die.settled = false;
    bench.live([die]);
    bench.until(T0 + 20 * S + 50 * MS);
    let dies = |bench: &Bench| {
        let rows = bench.rows.iter().filter(|t| t.event.action == Action::Die);
        rows.map(|t| (t.event.time_ns, t.event.details.run.exit_code)).collect::<Vec<_>>()
    };
    assert_eq!(dies(&bench), [(T0 + S, Some(1))]);
    let run = Run { started_ns: Some(T0 + 10 * S), finished_ns: Some(T0 + 20 * S), exit_code: Some(7), ..Run::default() };
    bench.details(&key, Witness::Docker, Details { run, ..Details::default() });
    assert_eq!(dies(&bench)[1..], [(T0 + 20 * S, Some(7))], "told as soon as it is known");
}

#[test]
fn a_die_whose_exit_code_nobody_tells_is_told_without() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let mut die = event(&key, Witness::Docker, Action::Die, T0);
    die.details = Details { image: Some("busybox".into()), image_id: Some("sha256:1".into()), ..Details::default() };
    die.settled = false;
    bench.live([die]);
    bench.until(T0 + 249 * MS);
    assert!(bench.rows.is_empty());
    bench.until(T0 + 400 * MS);
    assert_eq!(bench.row(&key, Action::Die).details.run.exit_code, None);
}

#[test]
fn each_run_keeps_its_own_exit_code_where_the_runtime_tells_nothing_else() {
    let key = docker("c1");
    let mut bench = Bench::new();
    for (n, code) in (0..).zip([137, 0, 3]) {
        bench.live([event(&key, Witness::Docker, Action::Start, T0 + n * 10 * S)]);
        bench.live([with_run(event(&key, Witness::Docker, Action::Die, T0 + n * 10 * S + S), exit(code))]);
    }
    bench.finish();
    let dies = bench.rows.iter().filter(|t| t.event.action == Action::Die);
    assert_eq!(dies.map(|t| t.event.details.run.exit_code).collect::<Vec<_>>(), [Some(137), Some(0), Some(3)]);
    let exited: Vec<_> = bench.spans(&key).into_iter().filter(|s| s.state == State::Exited).collect();
    assert_eq!(exited.iter().map(|s| s.details.run.exit_code).collect::<Vec<_>>(), [Some(137), Some(0), Some(3)]);
    assert_eq!(exited.iter().map(|s| s.details.run.signal).collect::<Vec<_>>(), [Some(9), None, None]);
}
