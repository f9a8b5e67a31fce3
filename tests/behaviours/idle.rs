//! A recorder that has nothing to do does nothing.

use std::{thread, time::Duration};

use mayfly_tests::{Mayfly, Result, report, usage};

use crate::{docker, turn};

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
