//! A recorder that has nothing to do does nothing.

use std::{fs, thread, time::Duration};

use mayfly_tests::{Mayfly, Result, report};

use crate::{docker, turn};

#[test]
fn an_idle_recorder_costs_nearly_nothing() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    let pid = recording.pid();
    // What start-up still does is not idling.
    thread::sleep(Duration::from_secs(2));
    let (before, seconds) = (ticks(pid)?, 5);
    thread::sleep(Duration::from_secs(seconds));
    let spent = ticks(pid)? - before;
    let rss = resident(pid)?;
    report(&format!("idle: {rss} kB resident, {spent} ticks of 10 ms in {seconds} s"));
    // Generous, for a debug build on a shared machine; the figures are the benchmarks' matter.
    assert!(spent <= 5, "{spent} ticks in {seconds} s");
    assert!(rss <= 80_000, "{rss} kB");
    recording.stop()?;
    Ok(())
}

/// Processor time of a process so far, in ticks.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of all.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).ok_or_else(|| format!("unexpected: {stat}"));
    Ok(field(11)? + field(12)?)
}

/// Resident memory in kB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("unexpected: {status}").into())
}
