//! dockerd is restarted under the recorder: what it did meanwhile is recovered from what it remembers, and the gap says so.

use std::time::Duration;

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, daemon::Docker, run, until};

use crate::turn;

/// With it the deaths in question would be seen live.
const WITHOUT_KERNEL: &str = "[ebpf]\nenabled = false\n";

/// Without live restore the daemon takes its containers down with it.
#[test]
fn a_restart_of_dockerd_ends_its_containers() -> Result<()> {
    let _turn = turn();
    let mut docker = Docker::start(false)?;
    let mayfly = Mayfly::with(&format!("{WITHOUT_KERNEL}[docker]\nendpoints = [\"{}\"]\n", docker.endpoint()))?;
    let recording = mayfly.record()?;
    start(&docker, "kept", &[])?;
    start(&docker, "removed", &["--rm"])?;
    mayfly.wait_for_count(STARTED, 2)?;
    docker.stop()?;
    until("notice that dockerd is gone", Duration::from_secs(10), || not_running(&mayfly))?;
    docker.resume()?;
    recording.wait_for_state("running")?;
    start(&docker, "after", &[])?;
    mayfly.wait_for_count(STARTED, 3)?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'die'", 2)?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
    for name in ["kept", "removed"] {
        let events = containers.get(name).map_or(&[][..], Vec::as_slice);
        let dies: Vec<_> = events.iter().filter(|e| e.action() == "die").collect();
        verdict.check(dies.len() == 1, format!("{} dies of a container that ended once", dies.len()), || format!("{name}: {events:?}"));
        // The shutdown ends them with SIGTERM or SIGKILL, seen live or found afterwards.
        let code = dies.first().and_then(|e| e.number("exit_code"));
        verdict.check(matches!(code, Some(137 | 143)), "exit code of a container that was shut down", || format!("{name}: {code:?}"));
    }
    let state = mayfly.query("SELECT state FROM container_history WHERE name = 'kept' AND valid_to_ns IS NULL")?;
    verdict.check(state.len() == 1 && format!("{state:?}").contains("exited"), "the stopped container's state", || format!("{state:?}"));
    let open = mayfly.query("SELECT * FROM container_history WHERE name = 'removed' AND valid_to_ns IS NULL")?;
    verdict.check(open.is_empty(), "a removed container's state still holds", || format!("{open:?}"));
    check_gap(&mut verdict, &mayfly)?;
    recording.stop()?;
    verdict.pass()
}

/// With live restore they live on; one that ends meanwhile is found with its exit code.
#[test]
fn containers_outlive_dockerd_with_live_restore() -> Result<()> {
    let _turn = turn();
    let mut docker = Docker::start(true)?;
    let mayfly = Mayfly::with(&format!("{WITHOUT_KERNEL}[docker]\nendpoints = [\"{}\"]\n", docker.endpoint()))?;
    let recording = mayfly.record()?;
    start(&docker, "lives-on", &[])?;
    run(docker.cli().args(["run", "--detach", "--name", "ends-meanwhile", IMAGE, "sh", "-c", "sleep 3; exit 7"]))?;
    mayfly.wait_for_count(STARTED, 2)?;
    docker.stop()?;
    until("notice that dockerd is gone", Duration::from_secs(10), || not_running(&mayfly))?;
    // It ends while nobody looks.
    std::thread::sleep(Duration::from_secs(3));
    docker.resume()?;
    recording.wait_for_state("running")?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'die'", 1)?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
    let dies = |name: &str| -> Vec<_> { containers.get(name).into_iter().flatten().filter(|e| e.action() == "die").collect() };
    verdict.check(dies("lives-on").is_empty(), "death of a container that lives", || format!("{:?}", dies("lives-on")));
    let ended = dies("ends-meanwhile");
    let right = ended.len() == 1 && ended[0].recovered() && ended[0].number("exit_code") == Some(7);
    verdict.check(right, "death that nobody saw", || format!("{ended:?}"));
    let running = mayfly.count("SELECT count(*) AS n FROM container_history WHERE name = 'lives-on' AND state = 'running'")?;
    verdict.check(running == 1, "intervals of one run", || running.to_string());
    check_gap(&mut verdict, &mayfly)?;
    recording.stop()?;
    verdict.pass()
}

/// A daemon that crashes leaves its containers; the next one takes them over.
#[test]
fn a_killed_dockerd_is_followed_again() -> Result<()> {
    let _turn = turn();
    let mut docker = Docker::start(true)?;
    let mayfly = Mayfly::with(&format!("{WITHOUT_KERNEL}[docker]\nendpoints = [\"{}\"]\n", docker.endpoint()))?;
    let recording = mayfly.record()?;
    start(&docker, "before", &[])?;
    mayfly.wait_for_count(STARTED, 1)?;
    docker.kill()?;
    until("notice that dockerd is gone", Duration::from_secs(10), || not_running(&mayfly))?;
    docker.resume()?;
    recording.wait_for_state("running")?;
    start(&docker, "after", &[])?;
    mayfly.wait_for_count(STARTED, 2)?;
    let mut verdict = Verdict::default();
    check_gap(&mut verdict, &mayfly)?;
    recording.stop()?;
    verdict.pass()
}

const STARTED: &str = "SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'start'";

fn start(docker: &Docker, name: &str, flags: &[&str]) -> Result<()> {
    let forever = ["sleep", "600"];
    run(docker.cli().args(["run", "--detach", "--stop-timeout", "1", "--name", name]).args(flags).arg(IMAGE).args(forever)).map(drop)
}

fn not_running(mayfly: &Mayfly) -> Result<()> {
    match mayfly.count("SELECT count(*) AS n FROM recorder_sources WHERE source = 'docker' AND state <> 'running'")? {
        0 => Err("the source says that it runs".into()),
        _ => Ok(()),
    }
}

/// One gap of this daemon, and it has ended.
fn check_gap(verdict: &mut Verdict, mayfly: &Mayfly) -> Result<()> {
    let gaps = mayfly.query("SELECT * FROM recorder_gaps WHERE source = 'docker' AND cause = 'daemon_down'")?;
    verdict.check(gaps.len() == 1, format!("{} gaps of dockerd instead of one", gaps.len()), || format!("{gaps:?}"));
    let ended = mayfly.count("SELECT count(*) AS n FROM recorder_gaps WHERE cause = 'daemon_down' AND gap_to_ns > gap_from_ns")?;
    verdict.check(ended == 1, "gap of dockerd that did not end", || format!("{gaps:?}"));
    Ok(())
}
