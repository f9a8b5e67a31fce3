//! Hundreds of containers that live for milliseconds: each is recorded whole, and a poller beside sees few of them.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Poller, Result, Verdict, Watch, by_name, churn, daemon::Podman, exits, percentile, report};

use crate::{amount, containerd, docker, turn};

/// A kind of load: who runs it, and what its runtime can know.
struct Load<'a> {
    runtime: &'static str,
    endpoint: String,
    runs: usize,
    workers: usize,
    image_id: &'a str,
    /// Whether a start must have its pid. Podman's late log may miss it; then it is counted.
    pid: bool,
    /// Whether its containers have an interface: then each must have its address, by the kernel's word where its runtime has none.
    bridged: bool,
    /// Prints the names of the present containers.
    list: Command,
    /// Runs a container of that name with that command.
    run: &'a (dyn Fn(&str, &[&str]) -> Command + Sync),
}

#[test]
fn docker_records_every_container_whole() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mut list = docker.cli();
    list.args(["ps", "--all", "--format", "{{.Names}} {{.Status}}"]);
    check(Load {
        runtime: "docker",
        endpoint: docker.endpoint(),
        runs: amount(80, 300),
        workers: 8,
        image_id: &docker.image.id,
        pid: true,
        bridged: true,
        list,
        run: &|name, command| {
            let mut cli = docker.cli();
            cli.args(["run", "--rm", "--name", name, "--label", &format!("job={name}"), IMAGE]).args(command);
            cli
        },
    })
}

#[test]
fn containerd_records_every_container_whole() -> Result<()> {
    let _turn = turn();
    let containerd = containerd()?;
    let mut list = containerd.cli();
    list.args(["containers", "list", "--quiet"]);
    check(Load {
        runtime: "containerd",
        endpoint: containerd.endpoint(),
        runs: amount(80, 300),
        workers: 4,
        image_id: &containerd.image.id,
        pid: true,
        bridged: false,
        list,
        run: &|name, command| {
            let mut cli = containerd.cli();
            cli.args(["run", "--rm", "--label", &format!("job={name}"), IMAGE, name]).args(command);
            cli
        },
    })
}

#[test]
fn podman_records_every_container_whole() -> Result<()> {
    let _turn = turn();
    let podman = Podman::start()?;
    let mut list = podman.cli();
    list.args(["ps", "--all", "--format", "{{.Names}} {{.Status}}"]);
    check(Load {
        runtime: "podman",
        endpoint: podman.endpoint(),
        runs: amount(40, 100),
        workers: 4,
        image_id: &podman.image.id,
        pid: false,
        bridged: true,
        list,
        run: &|name, command| {
            let mut cli = podman.runner();
            cli.args(["--name", name, "--label", &format!("job={name}"), IMAGE]).args(command);
            cli
        },
    })
}

fn check(load: Load<'_>) -> Result<()> {
    let Load { runtime, runs, workers, .. } = load;
    let mut config = format!("[{runtime}]\nendpoints = [\"{}\"]\n", load.endpoint);
    if load.bridged {
        config.push_str("[netlink]\nenabled = true\n");
    }
    let mayfly = Mayfly::with(&config)?;
    let recording = mayfly.record()?;
    if load.bridged {
        recording.wait_for(&["netlink"], "running")?;
    }
    let watch = mayfly.watch()?;
    // The watch starts beside; containers come until it has shown one.
    let deadline = Instant::now() + Duration::from_secs(20);
    for warm in 0.. {
        exits(&mut (load.run)(&format!("warm-{warm}"), &["true"]), 0)?;
        if watch.wait_for_first(Duration::from_millis(500)).is_ok() || Instant::now() > deadline {
            break;
        }
    }
    let poller = Poller::start(load.list, Duration::from_secs(1));
    let took = churn(runs, workers, |n| {
        let code = i32::try_from(n % 4)?;
        let script = format!("exit {code}");
        let command: &[&str] = if code == 0 { &["true"] } else { &["sh", "-c", &script] };
        exits(&mut (load.run)(&format!("job-{n}"), command), code)
    })?;
    mayfly.wait_for_count(&format!("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy' AND {JOB}"), runs)?;
    let polled: BTreeMap<_, _> = poller.stop().into_iter().filter(|(name, _)| name.starts_with("job-")).collect();
    let ends = polled.values().filter(|status| status.starts_with("Exited")).count();

    let containers = by_name(Lifecycle::all(&mayfly)?);
    let mut verdict = Verdict::default();
    for n in 0..runs {
        let name = format!("job-{n}");
        let events = containers.get(&name).map_or(&[][..], Vec::as_slice);
        check_container(&mut verdict, events, &name, i64::try_from(n % 4)?, load.image_id);
    }
    check_gaps(&mut verdict, &mayfly)?;
    let of =
        |wanted: &dyn Fn(&Lifecycle) -> bool| containers.iter().filter(|(n, es)| n.starts_with("job-") && es.iter().any(wanted)).count();
    let with_pid = of(&|e| e.action() == "start" && e.number("pid").is_some());
    let with_address = of(&|e| e.text("ip_addresses").len() > 2);
    report(&format!(
        "{runtime}: {runs} containers by {workers} workers in {took:.1?} ({:.1}/s)",
        f64::from(u32::try_from(runs)?) / took.as_secs_f64()
    ));
    report(&format!(
        "  polling each second saw {}, and how they ended of {ends}; Mayfly recorded {}, {with_pid} starts with pid, {with_address} with address",
        polled.len(),
        of(&|_| true)
    ));
    report_latency(watch);
    verdict.check(!load.pid || with_pid == runs, "runs without pid on every start", || format!("{with_pid} of {runs}"));
    if load.bridged {
        verdict.check(with_address == runs, "runs without address in any event", || format!("{with_address} of {runs}"));
        let running = mayfly.count(&format!("SELECT count(*) AS n FROM ({RUNNING_AT_AN_ADDRESS})"))?;
        verdict.check(running == i64::try_from(runs)?, "runs without the address that they had", || format!("{running} of {runs}"));
    }

    // The state as of each start is running, and all that ended is over.
    let running = "SELECT count(*) AS n FROM container_lifecycle_events e LEFT JOIN container_history h \
                   ON h.container_id = e.container_id AND h.as_of = e.time_ns WHERE e.action = 'start' AND h.state = 'running' AND e.name LIKE 'job-%'";
    if runtime != "containerd" {
        let running = mayfly.count(running)?;
        verdict
            .check(running == i64::try_from(runs)?, "starts whose state as of then is not running", || format!("{running} of {runs} are"));
    }
    let open = mayfly.count(&format!("SELECT count(*) AS n FROM container_history WHERE valid_to_ns IS NULL AND {JOB}"))?;
    verdict.check(open == 0, "intervals left open", || open.to_string());
    verdict.check(recording.stop()?.success(), "recorder that does not end in order", || mayfly.log());
    verdict.pass()
}

/// Runs whose address is the one that they had by the history of addresses, and no other.
const RUNNING_AT_AN_ADDRESS: &str = "SELECT DISTINCT h.container_id FROM container_history h JOIN ip_lease_history l \
    ON l.container_id = h.container_id AND h.ip_addresses = json_array(l.ip_address) WHERE h.state = 'running' AND h.name LIKE 'job-%'";
const JOB: &str = "(name LIKE 'job-%' OR container_id LIKE 'job-%')";

/// One container's whole story: each step once and in order, and what is known of it.
fn check_container(verdict: &mut Verdict, events: &[Lifecycle], name: &str, code: i64, image_id: &str) {
    let steps = ["create", "start", "die", "destroy"];
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        *seen.entry(event.action()).or_default() += 1;
    }
    for step in steps {
        let times = seen.get(step).copied().unwrap_or_default();
        verdict.check(times == 1, format!("{step} recorded {times} times"), || format!("{name}: {seen:?}"));
    }
    let mut story: Vec<_> = events.iter().filter(|e| steps.contains(&e.action())).collect();
    let recorded: Vec<_> = story.iter().map(|e| e.action()).collect();
    verdict.check(recorded == steps, "story recorded out of order", || format!("{name}: {recorded:?}"));
    story.sort_by_key(|e| e.time_ns());
    let told: Vec<_> = story.iter().map(|e| e.action()).collect();
    verdict.check(told == steps, "story out of order in time", || format!("{name}: {told:?}"));
    for event in story {
        let what = event.action();
        let at = || format!("{name}: {event:?}");
        verdict.check(event.text("image").contains("busybox:test"), format!("{what} without image"), at);
        let known = event.text("image_id") == image_id || event.text("image_digest").starts_with("sha256:");
        verdict.check(known, format!("{what} without image id"), at);
        verdict.check(event.text("labels").contains(&format!("\"job\":\"{name}\"")), format!("{what} without labels"), at);
        verdict.check(!event.recovered(), format!("{what} said to be recovered"), at);
        if what == "die" {
            verdict.check(event.number("exit_code") == Some(code), "die with a wrong exit code", at);
            verdict.check(event.number("lifetime_ms").is_some_and(|ms| ms >= 0), "die without lifetime", at);
        }
    }
}

/// Nothing was lost, and no source claims to have been blind since it runs.
fn check_gaps(verdict: &mut Verdict, mayfly: &Mayfly) -> Result<()> {
    let lost = mayfly.query("SELECT * FROM recorder_sources WHERE evicted > 0 OR rejected > 0")?;
    verdict.check(lost.is_empty(), "sources that lost events", || format!("{lost:?}"));
    let gaps = mayfly.query("SELECT * FROM recorder_gaps WHERE cause <> 'before_first_record'")?;
    verdict.check(gaps.is_empty(), "gaps", || format!("{gaps:?}"));
    Ok(())
}

/// How long after the runtime's own time a row could be read. Printed, never asserted: it is the machine's as much as ours.
fn report_latency(watch: Watch) {
    let seen = watch.stop();
    let late = |row: &mayfly_tests::Row| row.get("time_ns").and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
    let mut delays: Vec<_> = seen.iter().filter_map(|(at, row)| Some((at - late(row)?) / 1000)).collect();
    let (p50, p90, p99) = (percentile(&mut delays, 50), percentile(&mut delays, 90), percentile(&mut delays, 99));
    let most = delays.last().copied().unwrap_or_default();
    report(&format!("  visible after its own time: p50 {p50} µs, p90 {p90} µs, p99 {p99} µs, max {most} µs over {} events", delays.len()));
}
