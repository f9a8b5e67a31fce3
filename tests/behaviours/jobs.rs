//! Load of numbered containers, and what has to be told of each.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use mayfly_tests::{Lifecycle, Mayfly, Result, Verdict, by_name, until};

/// What job `n` exits with.
pub(crate) fn code(n: usize) -> Result<i32> {
    Ok(i32::try_from(n % 4)?)
}

/// Waits until so many jobs are done.
pub(crate) fn reached(least: usize, done: &AtomicUsize) -> Result<()> {
    until("part of the load", Duration::from_secs(120), || match done.load(Relaxed) {
        n if n >= least => Ok(()),
        n => Err(format!("{n} of {least}").into()),
    })
}

/// Checks that the life of each of the containers `job-0`, `job-1`, … was told once, whole, and with its exit code. Gives how many of its events
/// were recovered.
pub(crate) fn check(verdict: &mut Verdict, mayfly: &Mayfly, runs: usize) -> Result<usize> {
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
        let told = events.iter().find(|e| e.action() == "die").and_then(|e| e.number("exit_code"));
        verdict.check(told == Some(code(n)?.into()), "die with a wrong exit code", || format!("{name}: {told:?}"));
    }
    Ok(recovered)
}
