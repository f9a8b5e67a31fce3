//! The recorder is killed under load and started again: what happened meanwhile is recovered, said so, and told once.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, churn, exits, report, until};

use crate::{amount, containerd, docker, turn};

#[test]
fn a_killed_recorder_recovers_what_docker_did_meanwhile() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let (verdict, recovered) = crash(&mayfly, amount(80, 200), &|n, code| {
        let script = format!("exit {code}");
        exits(docker.cli().args(["run", "--rm", "--name", &format!("job-{n}"), IMAGE, "sh", "-c", &script]), code)
    })?;
    report(&format!("docker: {recovered} events recovered"));
    verdict.pass()
}

/// containerd keeps no backlog, so that what began and ended within the gap is gone; the rest goes on, and the gap says so.
#[test]
fn a_killed_recorder_goes_on_with_containerd() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let mayfly = Mayfly::following("containerd", &containerd.endpoint())?;
    let recording = mayfly.record()?;
    let start = |id: &str, script: &str| exits(containerd.cli().args(["run", "--detach", IMAGE, id, "sh", "-c", script]), 0);
    start("ends-meanwhile", "sleep 1; exit 7")?;
    start("lives-on", "sleep 600")?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'start'", 2)?;
    recording.kill()?;
    start("begins-meanwhile", "sleep 600")?;
    until("end of a task", Duration::from_secs(10), || {
        let tasks = mayfly_tests::run(containerd.cli().args(["tasks", "list"]))?;
        let ended = tasks.lines().any(|l| l.starts_with("ends-meanwhile") && l.contains("STOPPED"));
        if ended { Ok(()) } else { Err(tasks.into()) }
    })?;
    let recording = mayfly.record()?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE recovered = 1", 3)?;
    for id in ["ends-meanwhile", "lives-on", "begins-meanwhile"] {
        let _ = mayfly_tests::run(containerd.cli().args(["tasks", "kill", "--signal", "SIGKILL", id]));
        until("removal", Duration::from_secs(10), || mayfly_tests::run(containerd.cli().args(["containers", "delete", id])))?;
    }
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", 3)?;
    let containers = by_name(Lifecycle::all(&mayfly)?);
    let mut verdict = Verdict::default();
    let steps = |id: &str| -> Vec<(String, bool)> {
        containers.get(id).into_iter().flatten().map(|e| (e.action().to_owned(), e.recovered())).collect()
    };
    let expected = |recovered: [bool; 4]| -> Vec<(String, bool)> {
        ["create", "start", "die", "destroy"].map(str::to_owned).into_iter().zip(recovered).collect()
    };
    for (id, recovered) in [
        ("ends-meanwhile", [false, false, true, false]),
        ("begins-meanwhile", [true, true, false, false]),
        ("lives-on", [false, false, false, false]),
    ] {
        verdict.check(steps(id) == expected(recovered), format!("story of {id}"), || format!("{:?}", steps(id)));
    }
    let code = containers.get("ends-meanwhile").into_iter().flatten().find(|e| e.action() == "die").and_then(|e| e.number("exit_code"));
    verdict.check(code == Some(7), "exit code of ends-meanwhile", || format!("{code:?}"));
    check_gap(&mut verdict, &mayfly)?;
    recording.stop()?;
    verdict.pass()
}

/// Kills the recorder in the middle of `runs` containers by 4 workers, starts it again after 3 s; gives what is wrong and how many
/// events were recovered.
fn crash(mayfly: &Mayfly, runs: usize, job: &(dyn Fn(usize, i32) -> Result<()> + Sync)) -> Result<(Verdict, usize)> {
    let recording = mayfly.record()?;
    let done = AtomicUsize::new(0);
    let recording = thread::scope(|scope| {
        let load = scope.spawn(|| {
            churn(runs, 4, |n| {
                job(n, i32::try_from(n % 4)?)?;
                done.fetch_add(1, Relaxed);
                Ok(())
            })
        });
        until("half of the load", Duration::from_secs(120), || match done.load(Relaxed) {
            n if n * 3 >= runs => Ok(()),
            n => Err(format!("{n} of {runs}").into()),
        })?;
        recording.kill()?;
        // The gap is part of the scenario.
        thread::sleep(Duration::from_secs(3));
        let recording = mayfly.record()?;
        load.join().map_err(|_| "the load panicked")??;
        Ok::<_, mayfly_tests::Error>(recording)
    })?;
    let mut verdict = Verdict::default();
    if let Err(error) = mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", runs) {
        verdict.check(false, "destroys missing", || error.to_string());
    }
    let containers = by_name(Lifecycle::all(mayfly)?);
    let mut recovered = 0;
    for n in 0..runs {
        let name = format!("job-{n}");
        let events = containers.get(&name).map_or(&[][..], Vec::as_slice);
        recovered += events.iter().filter(|e| e.recovered()).count();
        for step in ["create", "start", "die", "destroy"] {
            let times = events.iter().filter(|e| e.action() == step).count();
            verdict.check(times == 1, format!("{step} recorded {times} times"), || format!("{name}: {events:?}"));
        }
        let code = events.iter().find(|e| e.action() == "die").and_then(|e| e.number("exit_code"));
        verdict.check(code == Some(i64::try_from(n % 4)?), "die with a wrong exit code", || format!("{name}: {code:?}"));
    }
    verdict.check(recovered > 0, "no event says that it is recovered", || format!("{runs} containers"));
    check_gap(&mut verdict, mayfly)?;
    recording.stop()?;
    Ok((verdict, recovered))
}

fn check_gap(verdict: &mut Verdict, mayfly: &Mayfly) -> Result<()> {
    let gaps = mayfly.query("SELECT * FROM recorder_gaps WHERE cause = 'recorder_down'")?;
    verdict.check(gaps.len() == 1, format!("{} gaps of the recorder instead of one", gaps.len()), || format!("{gaps:?}"));
    let closed = mayfly.count("SELECT count(*) AS n FROM recorder_gaps WHERE cause = 'recorder_down' AND gap_to_ns > gap_from_ns")?;
    verdict.check(closed == 1, "gap that did not end", || format!("{gaps:?}"));
    Ok(())
}
