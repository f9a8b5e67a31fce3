//! Queries at event time while containers start as fast as the machine can: each start is answered, once, while it is fresh.

use std::collections::BTreeMap;

use mayfly_tests::{IMAGE, Mayfly, Result, Verdict, churn, exits, percentile, report, run};
use serde_json::Value;

use crate::{
    amount, containerd, docker,
    manager::{Extension, Manager},
    turn,
};

#[test]
fn each_start_is_answered_while_docker_starts_containers_as_fast_as_it_can() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    check("docker", &docker.endpoint(), 8, &|name| exits(docker.cli().args(["run", "--rm", "--name", name, IMAGE, "true"]), 0))
}

#[test]
fn each_start_is_answered_while_containerd_starts_containers_as_fast_as_it_can() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    check("containerd", &containerd.endpoint(), 4, &|name| run(containerd.cli().args(["run", "--rm", IMAGE, name, "true"])).map(drop))
}

fn check(runtime: &str, endpoint: &str, workers: usize, start: &(dyn Fn(&str) -> Result<()> + Sync)) -> Result<()> {
    let runs = amount(60, 300);
    let trigger = "[[trigger]]\nname = \"started\"\non = \"container_lifecycle_events\"\nwhen = \"action = 'start'\"\n\
                   run = \"SELECT :container_id AS id\"\n";
    let mayfly = Mayfly::with(&format!("[{runtime}]\nendpoints = [\"{endpoint}\"]\n{trigger}"))?;
    let mut manager = Manager::start()?;
    let mut extension = Extension::start(&mayfly, &manager.socket())?;
    manager.wait_for_tables()?;
    let running = format!("SELECT count(*) AS n FROM recorder_sources WHERE source IN ('{runtime}', 'triggers') AND state = 'running'");
    mayfly.wait_for_count(&running, 2)?;
    let took = churn(runs, workers, |n| start(&format!("job-{n}")))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM triggered_results WHERE name = 'started'", runs)?;

    let results =
        mayfly.query("SELECT row, error, event_eid, delay_ms + duration_ms AS latency_ms FROM triggered_results WHERE name = 'started'")?;
    let starts = mayfly.query("SELECT eid, container_id FROM container_lifecycle_events WHERE action = 'start'")?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for result in &results {
        answers.entry(text(result.get("event_eid"))).or_default().push(text(result.get("row")) + &text(result.get("error")));
    }
    let mut verdict = Verdict::default();
    verdict.check(starts.len() == runs, format!("{} starts instead of {runs}", starts.len()), String::new);
    for event in &starts {
        let asked = format!(r#"{{"id":"{}"}}"#, text(event.get("container_id")));
        let given = answers.remove(&text(event.get("eid"))).unwrap_or_default();
        verdict.check(given == [asked], "a start without its one answer", || format!("{event:?}: {given:?}"));
    }
    verdict.check(answers.is_empty(), "answers to nothing", || format!("{answers:?}"));
    let lost = mayfly.query("SELECT * FROM recorder_sources WHERE source = 'triggers' AND (evicted > 0 OR rejected > 0)")?;
    verdict.check(lost.is_empty(), "events that were shed", || format!("{lost:?}"));
    let number = |value: Option<&Value>| value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
    let mut latencies: Vec<_> = results.iter().filter_map(|result| number(result.get("latency_ms"))).collect();
    report(&format!(
        "{runtime}: {runs} containers by {workers} workers in {took:.1?}; from a start's own time to its answer: p50 {} ms, p99 {} ms, max {} ms",
        percentile(&mut latencies, 50),
        percentile(&mut latencies, 99),
        percentile(&mut latencies, 100),
    ));
    extension.terminate()?;
    verdict.pass()
}
