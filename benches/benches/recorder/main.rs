//! The recorder as a process: what it costs idle and after a million events, and how soon it records after its start.
//!
//! `cargo bench --package mayfly-benches --bench recorder [-- EVENTS]`, on the release build.

mod daemon;
mod fill;

use std::{
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use mayfly_tests::{Mayfly, Result, fake::now, report, until, usage};

use self::daemon::{Amounts, STEPS};

/// The size of a store in use.
const STORE: u64 = 1 << 30;

fn main() -> Result<()> {
    let events: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000);
    let amounts = Amounts::default();
    let fake = daemon::start(amounts.clone())?;
    let endpoint = fake.endpoint();
    let mayfly = Mayfly::with(&format!("[docker]\nendpoints = [\"{endpoint}\"]\n[store]\nmax_size_mib = 4096\n"))?;
    let recording = mayfly.record()?;
    idle("idle, empty store", recording.pid())?;

    let began = Instant::now();
    let before = usage(recording.pid())?;
    amounts.wanted.store(events, SeqCst);
    until("last of the events", Duration::from_secs(900), || match amounts.sent.load(SeqCst) {
        sent if sent >= events => Ok(()),
        sent => Err(format!("{sent} of {events} sent").into()),
    })?;
    // All that was received is accounted for.
    let accounted = "SELECT events + evicted + rejected AS n FROM recorder_sources WHERE source = 'docker'";
    until("account of the events", Duration::from_secs(60), || {
        thread::sleep(Duration::from_millis(200));
        let n = mayfly.count(accounted)?;
        if usize::try_from(n)? >= events { Ok(()) } else { Err(format!("{n} of {events} accounted for").into()) }
    })?;
    let took = began.elapsed();
    let spent = usage(recording.pid())?;
    let lost = mayfly.query("SELECT events, evicted, rejected FROM recorder_sources WHERE source = 'docker'")?;
    let (ticks, resident) = (spent.ticks - before.ticks, spent.resident_kb);
    report(&format!("{events} events from a socket in {took:.1?}, {ticks} ticks of 10 ms, {resident} kB resident at once, {lost:?}"));
    idle("idle, after them", recording.pid())?;
    recording.stop()?;

    let (took, filled) = mayfly_benches::measure::timed(|| fill::fill(&mayfly.state_dir(), STORE));
    report(&format!("{} events written to the store besides in {took:.1?}", filled?));
    for _ in 0..5 {
        // The watch is there before, so that only the recorder's own start counts.
        let watch = mayfly.watch()?;
        thread::sleep(Duration::from_millis(500));
        amounts.wanted.fetch_add(STEPS, SeqCst);
        let started = now();
        let recording = mayfly.launch()?;
        watch.wait_for_first(Duration::from_secs(30))?;
        let seen = watch.stop();
        let first = seen.first().map_or(0, |(at, _)| at - started);
        let size = mayfly.count("SELECT db_size FROM recorder_info")?;
        report(&format!("start to first event readable: {} ms, store of {} MB", first / 1_000_000, size / 1_000_000));
        recording.stop()?;
    }
    Ok(())
}

/// Memory, and processor time over ten seconds.
fn idle(what: &str, pid: u32) -> Result<()> {
    // What the recorder does once the work is done is no idling.
    thread::sleep(Duration::from_secs(12));
    let before = usage(pid)?;
    thread::sleep(Duration::from_secs(10));
    let after = usage(pid)?;
    report(&format!("{what}: {} kB resident, {} ticks of 10 ms in 10 s", after.resident_kb, after.ticks - before.ticks));
    Ok(())
}
