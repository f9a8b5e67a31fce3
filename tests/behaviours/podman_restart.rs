//! Podman's service is restarted under churn that does not need it: all is recovered from Podman's log, and told once.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, churn, daemon::Podman, exits, report, until};

use crate::{amount, turn};

#[test]
fn what_podman_did_without_its_service_is_recovered() -> Result<()> {
    let _turn = turn();
    let mut podman = Podman::start()?;
    // The kernel would tell of it live.
    let mayfly = Mayfly::with(&format!("[ebpf]\nenabled = false\n[podman]\nendpoints = [\"{}\"]\n", podman.endpoint()))?;
    let recording = mayfly.record()?;
    let (runs, done, runner) = (amount(24, 100), AtomicUsize::new(0), podman.alone());
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            churn(runs, 4, |n| {
                let script = format!("exit {}", n % 4);
                exits(runner().args(["--name", &format!("job-{n}"), IMAGE, "sh", "-c", &script]), i32::try_from(n % 4)?)?;
                done.fetch_add(1, Relaxed);
                Ok(())
            })
        });
        let reached = |least: usize| {
            until("part of the load", Duration::from_secs(120), || match done.load(Relaxed) {
                n if n >= least => Ok(()),
                n => Err(format!("{n} of {least}").into()),
            })
        };
        reached(runs / 3)?;
        podman.stop()?;
        reached(runs / 3 + 6)?;
        podman.resume()?;
        load.join().map_err(|_| "the load panicked")?
    })?;
    recording.wait_for_state("running")?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", runs)?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
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
    report(&format!("podman: {recovered} events recovered of {runs} containers"));
    // Of six that ended meanwhile four were on their way: at least their die and destroy, and two whole.
    verdict.check(recovered >= 4 * 2 + 2 * 4, "too few events say that they are recovered", || recovered.to_string());
    let gaps = mayfly.query("SELECT * FROM recorder_gaps WHERE source = 'podman' AND cause = 'daemon_down' AND gap_to_ns > gap_from_ns")?;
    verdict.check(gaps.len() == 1, format!("{} gaps of Podman instead of one", gaps.len()), || format!("{gaps:?}"));
    let open = mayfly.query("SELECT * FROM container_history WHERE valid_to_ns IS NULL AND name LIKE 'job-%'")?;
    verdict.check(open.is_empty(), "intervals left open", || format!("{open:?}"));
    recording.stop()?;
    verdict.pass()
}
