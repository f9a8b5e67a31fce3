//! One container, several witnesses: Docker and its containerd, CRI and containerd.

use super::*;

fn image() -> Details {
    Details { image: Some("busybox:test".into()), image_id: Some("sha256:aa".into()), ..Details::default() }
}

#[test]
fn dockers_report_completes_and_replaces_that_of_its_containerd_while_it_waits() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let mut create = event(&key, Witness::Docker, Action::Create, T0);
    create.details = image();
    let mut start = event(&key, Witness::Docker, Action::Start, T0 + 60 * MS);
    start.settled = false;
    bench.live([
        create,
        with_run(event(&key, Witness::Containerd, Action::Start, T0 + 50 * MS), pid(42)),
        start,
        with_run(event(&key, Witness::Containerd, Action::Die, T0 + 70 * MS), Run { exit_code: Some(3), ..pid(42) }),
        with_run(event(&key, Witness::Docker, Action::Die, T0 + 80 * MS), exit(3)),
    ]);
    let run = Run { pid: Some(42), started_ns: Some(T0 + 55 * MS), ip_addresses: vec!["172.17.0.2".into()], ..Run::default() };
    bench.details(&key, Witness::Docker, Details { run, ..image() });
    assert_eq!(bench.rows.len(), 3, "all is known: nothing waits any longer");
    bench.finish();

    let start = bench.row(&key, Action::Start);
    assert_eq!((start.source, start.time_ns), (Witness::Docker, T0 + 60 * MS));
    assert_eq!((start.details.run.pid, &*start.details.run.ip_addresses), (Some(42), &["172.17.0.2".to_owned()][..]));
    let die = bench.row(&key, Action::Die);
    assert_eq!((die.time_ns, die.details.run.exit_code, die.lifetime_ms), (T0 + 80 * MS, Some(3), Some(20)));
    assert_eq!(die.details.image.as_deref(), Some("busybox:test"));
    assert_eq!(bench.spans(&key).iter().map(|s| &*s.evidence).collect::<Vec<_>>(), ["docker", "containerd,docker", "containerd,docker"]);
}

#[test]
fn a_row_that_could_not_wait_for_docker_stays_and_docker_adds_evidence() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([with_run(event(&key, Witness::Containerd, Action::Start, T0), pid(42))]);
    bench.until(T0 + 300 * MS);
    assert_eq!(bench.row(&key, Action::Start).source, Witness::Containerd);
    bench.push(Report::Event(Box::new(event(&key, Witness::Docker, Action::Start, T0 + 10 * MS))));
    bench.finish();
    assert_eq!((bench.rows.len(), bench.known), (1, 1));
    assert_eq!(bench.spans(&key)[0].evidence, "containerd,docker");
}

#[test]
fn containers_that_docker_makes_in_containerd_for_each_start_are_not_containers() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([
        event(&key, Witness::Docker, Action::Create, T0),
        event(&key, Witness::Containerd, Action::Create, T0 + 10 * MS),
        event(&key, Witness::Docker, Action::Start, T0 + 20 * MS),
        event(&key, Witness::Docker, Action::Die, T0 + 30 * MS),
        event(&key, Witness::Containerd, Action::Destroy, T0 + 31 * MS),
        event(&key, Witness::Docker, Action::Start, T0 + 3 * S),
    ]);
    bench.finish();
    let actions: Vec<_> = bench.told(&key).into_iter().map(|(a, _)| a).collect();
    assert_eq!(actions, [Action::Create, Action::Start, Action::Die, Action::Start]);
    assert_eq!(bench.history(&key).last(), Some(&(State::Running, T0 + 3 * S, None, "")));
}

#[test]
fn cri_and_containerd_tell_one_pods_container_once() {
    let key = kubernetes("k1");
    let mut bench = Bench::new();
    for (action, at) in [(Action::Create, 0), (Action::Start, 100), (Action::Die, 5000), (Action::Destroy, 6000)] {
        let run = if action == Action::Create { Run::default() } else { pid(7) };
        let mut cri = event(&key, Witness::Cri, action, T0 + (at + 4) * MS);
        cri.details.labels = std::sync::Arc::new([("io.kubernetes.pod.name".into(), "web-0".into())].into());
        bench.live([with_run(event(&key, Witness::Containerd, action, T0 + at * MS), run), cri]);
    }
    bench.finish();
    assert_eq!(bench.told(&key).len(), 4);
    assert_eq!(bench.known, 4, "what was settled did not wait");
    assert_eq!(bench.row(&key, Action::Die).details.labels.len(), 1);
}

#[test]
fn a_restart_loop_of_100_ms_keeps_its_runs_apart_for_both_witnesses() {
    let key = docker("loop");
    let mut bench = Bench::new();
    for n in 0..10 {
        let start = T0 + n * 120 * MS;
        let gone = Run { exit_code: Some(n), ..pid(100 + n) };
        bench.live([
            with_run(event(&key, Witness::Containerd, Action::Start, start), pid(100 + n)),
            event(&key, Witness::Docker, Action::Start, start + 8 * MS),
            with_run(event(&key, Witness::Containerd, Action::Die, start + 5 * MS), gone),
            with_run(event(&key, Witness::Docker, Action::Die, start + 15 * MS), exit(n)),
        ]);
    }
    bench.finish();
    let codes: Vec<_> = bench.rows.iter().filter(|t| t.event.action == Action::Die).map(|t| t.event.details.run.exit_code).collect();
    assert_eq!(codes, (0..10).map(Some).collect::<Vec<_>>());
    let pids: Vec<_> = bench.rows.iter().filter(|t| t.event.action == Action::Die).map(|t| t.event.details.run.pid).collect();
    assert_eq!(pids, (100..110).map(Some).collect::<Vec<_>>(), "Docker's rows get the pids that containerd knows");
    assert_eq!(bench.rows.len(), 20);
}

#[test]
fn exit_codes_past_128_name_the_signal_and_an_oom_kill_ends_as_such() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([
        event(&key, Witness::Docker, Action::Start, T0),
        event(&key, Witness::Containerd, Action::Oom, T0 + 400 * MS),
        event(&key, Witness::Docker, Action::Oom, T0 + 401 * MS),
        with_run(event(&key, Witness::Docker, Action::Die, T0 + 410 * MS), exit(137)),
    ]);
    bench.finish();
    let die = &bench.row(&key, Action::Die).details.run;
    assert_eq!((die.signal, die.oom_killed), (Some(9), Some(true)));
    assert_eq!(bench.history(&key)[0].3, "oom_killed");
    assert_eq!(bench.row(&key, Action::Oom).source, Witness::Docker, "one oom by two witnesses");
}

#[test]
fn an_exec_is_told_once_and_its_process_is_not_the_containers() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([with_run(event(&key, Witness::Docker, Action::Start, T0), pid(42))]);
    for witness in [Witness::Containerd, Witness::Docker] {
        let mut exec = with_run(event(&key, witness, Action::ExecStart, T0 + 100 * MS), pid(77));
        exec.exec_id = Some("e1".into());
        bench.live([exec]);
    }
    bench.finish();
    let exec = bench.row(&key, Action::ExecStart);
    assert_eq!((exec.details.run.pid, exec.source), (Some(77), Witness::Docker));
    assert_eq!(bench.spans(&key)[0].details.run.pid, Some(42));
}

#[test]
fn an_id_that_comes_back_is_a_new_container() {
    let key = ContainerKey { container_id: "job".into(), runtime_namespace: "default".into(), endpoint: "unix:///c.sock".into() };
    let mut bench = Bench::new();
    for n in 0..3 {
        for (action, at) in [(Action::Create, 0), (Action::Start, 10), (Action::Die, 20), (Action::Destroy, 30)] {
            bench.live([event(&key, Witness::Containerd, action, T0 + (n * 200 + at) * MS)]);
        }
    }
    bench.finish();
    assert_eq!(bench.told(&key).len(), 12);
    let destroy = event(&key, Witness::Containerd, Action::Destroy, T0 + 30 * MS);
    bench.push(Report::Event(Box::new(destroy)));
    bench.finish();
    assert_eq!(bench.told(&key).len(), 12, "a replay of the first life is known");
}

#[test]
fn a_rename_wins_over_every_older_name() {
    let key = docker("c1");
    let mut bench = Bench::new();
    let mut rename = event(&key, Witness::Docker, Action::Rename, T0 + S);
    rename.details.name = Some("new".into());
    let mut create = event(&key, Witness::Docker, Action::Create, T0);
    create.details.name = Some("old".into());
    bench.live([create, rename]);
    bench.details(&key, Witness::Docker, Details { name: Some("old".into()), ..Details::default() });
    bench.finish();
    assert_eq!(bench.row(&key, Action::Rename).details.name.as_deref(), Some("new"));
    assert_eq!(bench.spans(&key)[0].details.name.as_deref(), Some("new"));
}

#[test]
fn a_container_of_dockers_that_only_containerd_told_of_ends_and_is_forgotten() {
    let key = docker("c1");
    let mut bench = Bench::new();
    bench.live([
        with_run(event(&key, Witness::Containerd, Action::Start, T0), pid(42)),
        with_run(event(&key, Witness::Containerd, Action::Die, T0 + S), pid(42)),
    ]);
    for _ in 0..2 {
        bench.until(bench.wall_ns + 601 * S);
        bench.ledger.sweep(bench.moment());
        bench.settle();
        assert!(bench.history(&key).last().is_none_or(|(_, _, to, reason)| to.is_some() && *reason == "unknown"));
    }
    assert!(bench.ledger.subject(&key).unwrap().sealed_ns.is_some());
    bench.live([with_run(event(&key, Witness::Containerd, Action::Start, T0 + 2000 * S), pid(43))]);
    assert_eq!(bench.history(&key).last().map(|s| (s.0, s.2)), Some((State::Running, None)), "Docker started it again");

    bench.until(T0 + 2010 * S);
    bench.list(&key, Some(T0), Vec::new());
    assert_eq!(bench.history(&key).last().map(|s| s.3), Some("unknown"), "Docker's list has it no more");
}
