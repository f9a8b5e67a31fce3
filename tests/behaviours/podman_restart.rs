//! Podman's service is restarted under churn that does not need it: all is recovered from Podman's log, and told once.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use mayfly_tests::{IMAGE, Mayfly, Result, Verdict, churn, daemon::Podman, exits, report};

use crate::{amount, jobs, turn};

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
                let code = jobs::code(n)?;
                exits(runner().args(["--name", &format!("job-{n}"), IMAGE, "sh", "-c", &format!("exit {code}")]), code)?;
                done.fetch_add(1, Relaxed);
                Ok(())
            })
        });
        jobs::reached(runs / 3, &done)?;
        podman.stop()?;
        jobs::reached(runs / 3 + 6, &done)?;
        podman.resume()?;
        load.join().map_err(|_| "the load panicked")?
    })?;
    recording.wait_for_state("running")?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", runs)?;

    let mut verdict = Verdict::default();
    let recovered = jobs::check(&mut verdict, &mayfly, runs)?;
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
