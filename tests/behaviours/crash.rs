//! The recorder is killed under load and started again: what happened meanwhile is recovered, said so, and told once.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, churn, exits, fake::now, report, until};

use crate::{amount, containerd, docker, jobs, turn};

/// What ended this long before a kill was written by then.
const MARGIN: i64 = 1_000_000_000;

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

/// The same under churn: what began before the kill or after the restart is whole; of the rest nothing is invented, and nothing goes on for ever.
#[test]
fn a_killed_recorder_invents_nothing_of_what_ctr_did_meanwhile() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let mayfly = Mayfly::following("containerd", &containerd.endpoint())?;
    let recording = mayfly.record()?;
    let runs = amount(80, 200);
    let spans = Mutex::new(BTreeMap::new());
    let done = AtomicUsize::new(0);
    let (recording, killed_ns, seeing_ns) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            churn(runs, 4, |n| {
                let (id, script, began_ns) = (format!("crash-{n}"), format!("sleep 0.2; exit {}", n % 4), now());
                exits(containerd.cli().args(["run", "--rm", IMAGE, &id, "sh", "-c", &script]), i32::try_from(n % 4)?)?;
                spans.lock().unwrap_or_else(PoisonError::into_inner).insert(n, (began_ns, now()));
                done.fetch_add(1, Relaxed);
                Ok(())
            })
        });
        jobs::reached(runs / 3, &done)?;
        let killed_ns = now();
        recording.kill()?;
        // The gap is part of the scenario.
        thread::sleep(Duration::from_secs(3));
        let recording = mayfly.record()?;
        let seeing_ns = now();
        load.join().map_err(|_| "the load panicked")??;
        Ok::<_, mayfly_tests::Error>((recording, killed_ns, seeing_ns))
    })?;
    let spans = spans.into_inner().unwrap_or_else(PoisonError::into_inner);
    let whole = |(began_ns, ended_ns): &(i64, i64)| *ended_ns + MARGIN < killed_ns || *began_ns > seeing_ns;
    let expected = spans.values().filter(|span| whole(span)).count();
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", expected)?;
    let open = "SELECT count(*) AS n FROM container_history WHERE valid_to_ns IS NULL AND container_id LIKE 'crash-%'";
    until("end of what is gone", Duration::from_secs(20), || match mayfly.count(open)? {
        0 => Ok(()),
        n => Err(format!("{n} intervals go on").into()),
    })?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
    for (n, span) in &spans {
        let id = format!("crash-{n}");
        let events = containers.get(&id).map_or(&[][..], Vec::as_slice);
        let story: Vec<_> = events.iter().map(Lifecycle::action).collect();
        let steps = ["create", "start", "die", "destroy"];
        let told = |step: &str| story.iter().filter(|action| **action == step).count();
        verdict.check(steps.iter().all(|step| told(step) <= 1), "step told twice", || format!("{id}: {events:?}"));
        verdict.check(!whole(span) || story == steps, "story that is not whole, though nobody was blind", || format!("{id}: {events:?}"));
        let code = events.iter().find(|e| e.action() == "die").and_then(|e| e.number("exit_code"));
        verdict.check(code.is_none_or(|code| usize::try_from(code) == Ok(n % 4)), "wrong exit code", || format!("{id}: {events:?}"));
    }
    let lost = spans.len() - containers.keys().filter(|id| id.starts_with("crash-")).count();
    let unknown =
        "SELECT count(DISTINCT container_id) AS n FROM container_history WHERE ended_reason = 'unknown' AND container_id LIKE 'crash-%'";
    let unknown = mayfly.count(unknown)?;
    let gap = mayfly.query("SELECT recovered_count, detail FROM recorder_gaps WHERE cause = 'recorder_down'")?;
    report(&format!("ctr: {expected} of {runs} outside of the gap; {lost} came and went in it, {unknown} ended in it unseen; {gap:?}"));
    let counted = unknown == 0 || format!("{gap:?}").contains(&format!("{unknown} containers ended unseen"));
    verdict.check(counted, "ends that nobody saw and the gap does not count", || format!("{unknown}: {gap:?}"));
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
                job(n, jobs::code(n)?)?;
                done.fetch_add(1, Relaxed);
                Ok(())
            })
        });
        jobs::reached(runs / 3, &done)?;
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
    let recovered = jobs::check(&mut verdict, mayfly, runs)?;
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
