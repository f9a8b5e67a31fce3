//! The recorder as a process: what it costs idle and after a million events, and how soon it records after its start.
//!
//! `cargo bench --package mayfly-benches --bench recorder [-- EVENTS]`, on the release build.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly_tests::{
    IMAGE, Mayfly, Result,
    fake::{Fake, begin, empty, event, now},
    report, until, usage,
};
use serde_json::json;

fn main() -> Result<()> {
    let events: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000);
    let wanted = Arc::new(AtomicUsize::new(0));
    let sent = Arc::new(AtomicUsize::new(0));
    let fake = containers(Arc::clone(&wanted), Arc::clone(&sent))?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let recording = mayfly.record()?;
    idle("idle, empty store", recording.pid())?;

    let began = Instant::now();
    let before = usage(recording.pid())?;
    wanted.store(events, SeqCst);
    let last = "SELECT count(*) AS n FROM container_lifecycle_events WHERE container_id LIKE 'last-%' AND action = 'destroy'";
    until("last of the events", Duration::from_secs(900), || match (sent.load(SeqCst) >= events, mayfly.count(last)?) {
        (true, 1) => Ok(()),
        _ => {
            thread::sleep(Duration::from_millis(200));
            Err(format!("{} of {events} sent", sent.load(SeqCst)).into())
        }
    })?;
    let took = began.elapsed();
    let spent = usage(recording.pid())?.ticks - before.ticks;
    let lost = mayfly.query("SELECT events, evicted, rejected FROM recorder_sources WHERE source = 'docker'")?;
    let sent = sent.load(SeqCst);
    report(&format!("{sent} events from a socket in {took:.1?}, {spent} ticks of 10 ms, {lost:?}"));
    idle("idle, after them", recording.pid())?;
    recording.stop()?;

    for _ in 0..3 {
        // The watch is there before, so that only the recorder's own start counts.
        let watch = mayfly.watch()?;
        thread::sleep(Duration::from_millis(300));
        wanted.fetch_add(4, SeqCst);
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
    thread::sleep(Duration::from_secs(3));
    let before = usage(pid)?;
    thread::sleep(Duration::from_secs(10));
    let after = usage(pid)?;
    report(&format!("{what}: {} kB resident, {} ticks of 10 ms in 10 s", after.resident_kb, after.ticks - before.ticks));
    Ok(())
}

/// A daemon whose stream tells the life of one container after the other, four events each, until as many as wanted were sent.
fn containers(wanted: Arc<AtomicUsize>, sent: Arc<AtomicUsize>) -> Result<Fake> {
    Fake::start(move |path, stream| {
        if !path.contains("/events") {
            return empty(path, stream);
        }
        begin(stream)?;
        let mut text = String::new();
        loop {
            let left = wanted.load(SeqCst).saturating_sub(sent.load(SeqCst));
            if left == 0 {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            // A client that is gone shows when it is written to; its events are the next one's.
            stream.write_all(b"\n")?;
            let n = sent.load(SeqCst) / 4;
            let id = if left <= 4 && n > 1 { format!("last-{n}") } else { format!("{n:064x}") };
            let known = json!({ "image": IMAGE, "name": format!("job-{n}"), "com.example.team": "payments", "com.example.commit": format!("{n:040x}") });
            let mut dead = known.clone();
            dead["exitCode"] = json!("0");
            text.clear();
            for (action, attributes) in [("create", &known), ("start", &known), ("die", &dead), ("destroy", &known)] {
                text.push_str(&event(action, &id, now(), attributes));
            }
            stream.write_all(text.as_bytes())?;
            sent.fetch_add(4, SeqCst);
        }
    })
}
