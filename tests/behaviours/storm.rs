//! One container that makes noise costs the others nothing.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use mayfly_tests::{
    IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, churn,
    fake::{Fake, begin, empty, event, now},
    report, run,
};
use serde_json::json;

use crate::{amount, docker, turn};

/// Health checks and exec loops, as a runtime really delivers them.
#[test]
fn an_exec_loop_evicts_nobody() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    run(docker.cli().args(["run", "--detach", "--rm", "--name", "loud", IMAGE, "sleep", "600"]))?;
    let quiet = amount(20, 50);
    thread::scope(|scope| -> Result<()> {
        let noise = scope.spawn(|| churn(amount(100, 400), 4, |_| run(docker.cli().args(["exec", "loud", "true"])).map(drop)));
        churn(quiet, 2, |n| run(docker.cli().args(["run", "--rm", "--name", &format!("quiet-{n}"), IMAGE, "true"])).map(drop))?;
        noise.join().map_err(|_| "the noise panicked")?.map(drop)
    })?;
    run(docker.cli().args(["kill", "loud"]))?;
    let mut verdict = whole(&mayfly, quiet)?;
    let execs = mayfly.count("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = 'loud' AND action = 'exec_die'")?;
    verdict.check(execs > 0, "no exec of the loud one", || execs.to_string());
    recording.stop()?;
    verdict.pass()
}

/// Faster than any runtime: 100,000 events of one container in one go, and what the others do in the middle of it.
#[test]
fn a_flood_of_one_container_leaves_the_others_whole() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    let _turn = turn();
    let quiet = 50;
    let fake = Fake::start(move |path, stream| {
        if !path.contains("/events") || DONE.swap(true, SeqCst) {
            return if path.contains("/events") { park(stream) } else { empty(path, stream) };
        }
        begin(stream)?;
        for round in 0..100_000 {
            let id = format!("{:064x}", 0xdead_u32);
            let exec = json!({ "image": IMAGE, "name": "loud", "execID": format!("{round:064x}") });
            stream.write_all(event("exec_create: true", &id, now(), &exec).as_bytes())?;
            if round % 2_000 == 1_000 {
                let n = round / 2_000;
                let id = format!("{:064x}", 0x1000 + n);
                let attributes = json!({ "image": IMAGE, "name": format!("quiet-{n}") });
                let dead = json!({ "image": IMAGE, "name": format!("quiet-{n}"), "exitCode": "0" });
                for (action, attributes) in [("create", &attributes), ("start", &attributes), ("die", &dead), ("destroy", &attributes)] {
                    stream.write_all(event(action, &id, now(), attributes).as_bytes())?;
                }
            }
        }
        park(stream)
    })?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let recording = mayfly.launch()?;
    let mut verdict = whole(&mayfly, quiet)?;
    let sources = mayfly.query("SELECT * FROM recorder_sources WHERE source = 'docker'")?;
    report(&format!("flood of 100,000: {sources:?}"));
    let loud = mayfly.query("SELECT action, count(*) AS n FROM container_lifecycle_events WHERE name = 'loud' GROUP BY action")?;
    report(&format!("recorded of the loud one: {loud:?}"));
    // Each of the flood was told or counted, and the others' row says so: received = stored + evicted + rejected.
    let received = 100_000 + 4 * i64::try_from(quiet)?;
    let counted = "SELECT events + evicted + rejected AS n FROM recorder_sources WHERE source = 'docker'";
    mayfly.wait_for_count(counted, usize::try_from(received)?)?;
    let shed =
        "SELECT sum(json_extract(attributes, '$.shed')) AS n FROM container_lifecycle_events WHERE action = 'throttled' AND name = 'loud'";
    // What was shed is told once a window.
    let told = mayfly.count("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = 'loud' AND action = 'exec_create'")?;
    mayfly.wait_for_count(shed, usize::try_from(100_000 - told)?)?;
    let evicted = mayfly.count("SELECT evicted AS n FROM recorder_sources WHERE source = 'docker'")?;
    let rejected = mayfly.count("SELECT rejected AS n FROM recorder_sources WHERE source = 'docker'")?;
    verdict.check(evicted == 0, "events evicted by one container's flood", || evicted.to_string());
    // Details that its share did not take are rejected too.
    verdict.check(told > 0 && told + rejected >= 100_000, "events neither told nor rejected", || format!("{told}, {rejected} rejected"));
    verdict.check(mayfly.count(shed)? == 100_000 - told, "shed, and not told so", || format!("{told} told, {rejected} rejected"));
    recording.stop()?;
    verdict.pass()
}

/// Keeps a stream open that says nothing more.
fn park(stream: &mut std::os::unix::net::UnixStream) -> std::io::Result<()> {
    begin(stream)?;
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

/// What is missing of the quiet containers.
fn whole(mayfly: &Mayfly, quiet: usize) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let ended = "SELECT count(*) AS n FROM container_lifecycle_events WHERE name LIKE 'quiet-%' AND action = 'destroy'";
    if let Err(error) = mayfly.wait_for_count(ended, quiet) {
        verdict.check(false, "destroys missing", || error.to_string());
    }
    let containers = by_name(Lifecycle::all(mayfly)?.into_iter().filter(|e| e.text("name").starts_with("quiet-")).collect());
    verdict.check(containers.len() == quiet, "quiet containers missing", || format!("{} of {quiet}", containers.len()));
    for (name, events) in containers {
        for step in ["create", "start", "die", "destroy"] {
            let times = events.iter().filter(|e| e.action() == step).count();
            verdict.check(times == 1, format!("{step} recorded {times} times"), || name.clone());
        }
    }
    Ok(verdict)
}
