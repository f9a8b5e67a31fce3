//! A storm from one container is shed, counted and told; its life is not.

use super::*;

#[test]
fn what_is_shed_is_counted_and_told_once_a_window() {
    let key = docker("noisy");
    let mut bench = Bench::new();
    bench.live([event(&key, Witness::Docker, Action::Create, T0), event(&key, Witness::Docker, Action::Start, T0 + MS)]);
    for n in 0..2000 {
        let mut exec = event(&key, Witness::Docker, Action::ExecStart, T0 + 2 * MS + n);
        exec.exec_id = Some(format!("e{n}"));
        bench.feed.count_received();
        bench.live([exec]);
    }
    bench.live([event(&key, Witness::Docker, Action::Die, T0 + 3 * MS)]);
    bench.finish();
    let shed: u64 = bench.row(&key, Action::Throttled).attributes["shed"].parse().unwrap();
    let told = bench.rows.iter().filter(|t| t.event.action == Action::ExecStart).count();
    assert_eq!(told as u64 + shed, 2000);
    assert_eq!(bench.feed.status().rejected, shed);
    assert!(bench.ledger.subject(&key).unwrap().sightings.len() < 200);
    bench.row(&key, Action::Die);
}

#[test]
fn pauses_that_are_shed_still_show_in_the_history() {
    let key = docker("noisy");
    let mut bench = Bench::new();
    bench.live([event(&key, Witness::Docker, Action::Start, T0)]);
    for n in 0..300 {
        let action = if n % 2 == 0 { Action::Pause } else { Action::Unpause };
        bench.live([event(&key, Witness::Docker, action, T0 + (n + 1) * MS)]);
    }
    bench.finish();
    let spans = bench.spans(&key);
    assert_eq!(spans.last().map(|s| (s.state, s.to_ns)), Some((State::Running, None)));
    assert!(spans.windows(2).all(|pair| pair[0].to_ns == Some(pair[1].from_ns)));
}

#[test]
fn details_of_what_nobody_told_of_are_forgotten_after_a_while() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.details(&docker(&format!("c{n}")), Witness::Docker, Details { created_ns: Some(T0 - S), ..Details::default() });
    }
    let told = docker("c7");
    bench.live([event(&told, Witness::Docker, Action::Create, T0 - S)]);
    bench.until(T0 + 61 * S);
    bench.sweep();
    assert_eq!(bench.history(&docker("c3")), [(State::Created, T0 - S, Some(T0 + 61 * S), "unknown")]);
    assert_eq!(bench.history(&told), [(State::Created, T0 - S, None, "")]);
    bench.until(T0 + 3600 * S);
    bench.sweep();
    assert!(bench.ledger.subject(&docker("c3")).unwrap().sealed_ns.is_some());
}

#[test]
fn an_endpoint_that_invents_containers_without_end_is_followed_up_to_a_bound() {
    let mine = kubernetes("mine");
    let mut bench = Bench::new();
    bench.live([event(&mine, Witness::Containerd, Action::Create, T0)]);
    for n in 0..40_000 {
        bench.live([event(&docker(&format!("c{n}")), Witness::Docker, Action::Create, T0)]);
    }
    bench.finish();
    assert!(bench.ledger.alive("unix:///run/docker.sock", "moby").len() <= 8192);
    assert_eq!(bench.history(&mine), [(State::Created, T0, None, "")], "nobody else's is given up");
    assert_eq!(bench.history(&docker("c39999")), [(State::Created, T0, None, "")], "nor the newest");
    assert!(bench.feed.status().last_error.contains("no longer followed"));
    assert_eq!(bench.rows.len(), 40_001, "each was told");
}
