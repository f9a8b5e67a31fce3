//! containerd is restarted under the recorder; its tasks live on under their shims.

use std::time::Duration;

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Result, Verdict, by_name, daemon::Containerd, run};

use crate::turn;

/// With it the deaths in question would be seen live.
const WITHOUT_KERNEL: &str = "[ebpf]\nenabled = false\n";

#[test]
fn tasks_that_end_while_containerd_is_down_are_found() -> Result<()> {
    let _turn = turn();
    let mut containerd = Containerd::start()?;
    let mayfly = Mayfly::with(&format!("{WITHOUT_KERNEL}[containerd]\nendpoints = [\"{}\"]\n", containerd.endpoint()))?;
    let recording = mayfly.record()?;
    run(containerd.cli().args(["run", "--detach", IMAGE, "lives-on", "sleep", "600"]))?;
    run(containerd.cli().args(["run", "--detach", IMAGE, "ends-meanwhile", "sh", "-c", "sleep 3; exit 7"]))?;
    let count = |action: &str| format!("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = '{action}'");
    mayfly.wait_for_count(&count("start"), 2)?;
    containerd.stop()?;
    // It ends while nobody looks.
    std::thread::sleep(Duration::from_secs(4));
    containerd.resume()?;
    recording.wait_for_state("running")?;
    mayfly.wait_for_count(&count("die"), 1)?;
    run(containerd.cli().args(["run", "--rm", IMAGE, "after", "true"]))?;
    mayfly.wait_for_count(&count("destroy"), 1)?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
    let dies = |id: &str| -> Vec<_> { containers.get(id).into_iter().flatten().filter(|e| e.action() == "die").collect() };
    verdict.check(dies("lives-on").is_empty(), "death of a task that lives", || format!("{:?}", dies("lives-on")));
    let ended = dies("ends-meanwhile");
    let right = ended.len() == 1 && ended[0].recovered() && ended[0].number("exit_code") == Some(7);
    verdict.check(right, "death that nobody saw", || format!("{ended:?}"));
    let gaps = mayfly.query("SELECT * FROM recorder_gaps WHERE source = 'containerd' AND cause = 'daemon_down'")?;
    verdict.check(gaps.len() == 1, format!("{} gaps of containerd instead of one", gaps.len()), || format!("{gaps:?}"));
    recording.stop()?;
    verdict.pass()
}

/// Docker's containers are containerd's too, in the namespace `moby`; followed both ways, each thing is told once.
#[test]
fn docker_and_its_containerd_tell_one_story() -> Result<()> {
    let _turn = turn();
    let docker = crate::docker()?;
    let (endpoint, beneath) = (docker.endpoint(), docker.containerd_endpoint());
    let mayfly =
        Mayfly::with(&format!("{WITHOUT_KERNEL}[docker]\nendpoints = [\"{endpoint}\"]\n[containerd]\nendpoints = [\"{beneath}\"]\n"))?;
    let recording = mayfly.record()?;
    let runs = crate::amount(40, 200);
    mayfly_tests::churn(runs, 4, |n| run(docker.cli().args(["run", "--rm", "--name", &format!("job-{n}"), IMAGE, "true"])).map(drop))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", runs)?;

    let mut verdict = Verdict::default();
    let containers = by_name(Lifecycle::all(&mayfly)?);
    verdict.check(containers.len() == runs, "containers under another identity", || format!("{} instead of {runs}", containers.len()));
    for (name, events) in &containers {
        for step in ["create", "start", "die", "destroy"] {
            let times = events.iter().filter(|e| e.action() == step).count();
            verdict.check(times == 1, format!("{step} recorded {times} times"), || format!("{name}: {events:?}"));
        }
        let pid = events.iter().any(|e| e.action() == "start" && e.number("pid").is_some());
        verdict.check(pid, "start without pid", || format!("{name}: {events:?}"));
        let docker =
            events.iter().all(|e| e.text("runtime") == "docker" && e.text("runtime_namespace") == "moby" && e.text("endpoint") == endpoint);
        verdict.check(docker, "container that is not Docker's", || format!("{name}: {events:?}"));
    }
    let both =
        mayfly.count("SELECT count(*) AS n FROM container_history WHERE evidence LIKE '%containerd%' AND evidence LIKE '%docker%'")?;
    verdict.check(both > 0, "no interval has both witnesses", || both.to_string());
    recording.stop()?;
    verdict.pass()
}
