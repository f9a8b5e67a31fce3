//! A recorder that has nothing to do does nothing.

use std::{thread, time::Duration};

use mayfly_tests::{Mayfly, Result, report, usage};

use crate::{containerd, docker, turn};

/// Every source, all that the probes can tell, and two runtimes.
#[test]
fn with_everything_on_an_idle_recorder_stays_within_40_mb_and_ten_wakeups_a_second() -> Result<()> {
    let _turn = turn();
    let (docker, containerd) = (docker()?.endpoint(), containerd()?.endpoint());
    let mayfly = Mayfly::with(&format!(
        "[docker]\nendpoints = [\"{docker}\"]\n[containerd]\nendpoints = [\"{containerd}\"]\n[podman]\n[cri]\n[accounts]\n[mounts]\nwho = true\n\
         [identity]\n[netlink]\n[dhcp]\n[lease_file]\n[ebpf]\nhost_processes = true\n"
    ))?;
    let recording = mayfly.launch()?;
    recording.wait_for(&["docker", "containerd", "ebpf", "accounts", "mounts", "identity", "netlink"], "running")?;
    let pid = recording.pid();
    thread::sleep(Duration::from_secs(12));
    let seconds: u32 = 10;
    let before = usage(pid)?;
    thread::sleep(Duration::from_secs(seconds.into()));
    let after = usage(pid)?;
    let wakeups = f64::from(u32::try_from(after.waits - before.waits)?) / f64::from(seconds);
    let ticks = after.ticks - before.ticks;
    report(&format!(
        "idle, everything on: {} kB resident, {wakeups:.1} wakeups/s, {ticks} ticks of 10 ms in {seconds} s",
        after.resident_kb
    ));
    assert!(after.resident_kb <= 40_000, "{} kB", after.resident_kb);
    // Others of this machine wake it, too: what they execute is recorded.
    assert!(wakeups <= 10.0 || std::env::var_os("MAYFLY_PROVE").is_none(), "{wakeups} wakeups a second");
    recording.stop()?;
    Ok(())
}

#[test]
fn an_idle_recorder_costs_nearly_nothing() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    let pid = recording.pid();
    // What start-up still does is not idling; its memory is given back some seconds later.
    thread::sleep(Duration::from_secs(12));
    let (before, seconds) = (usage(pid)?.ticks, 5);
    thread::sleep(Duration::from_secs(seconds));
    let spent = usage(pid)?.ticks - before;
    let rss = usage(pid)?.resident_kb;
    report(&format!("idle: {rss} kB resident, {spent} ticks of 10 ms in {seconds} s"));
    // Generous, for a debug build on a shared machine; the figures are the benchmarks' matter.
    assert!(spent <= 3, "{spent} ticks in {seconds} s");
    assert!(rss <= 50_000, "{rss} kB");
    recording.stop()?;
    Ok(())
}
