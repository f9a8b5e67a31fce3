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
