//! What the probes cost, and what they carry: `cargo bench -p mayfly-ebpf`. Needs root.
//!
//! Prints, of one run on one machine: the time of fork + exec + exit with probes and without, in interleaved pairs;
//! nanoseconds by probe from the kernel's own statistics; wakeups and memory while idle; events a second without loss;
//! and the accounts of a burst that is too much.

#![expect(clippy::print_stdout, reason = "a benchmark's output")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what it cannot do")]
#![expect(clippy::cast_precision_loss, reason = "counts for people to read")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use mayfly_ebpf::{EbpfConfig, Follower, KernelSinks, follow};
use mayfly_history::{Feed, Sink, process::ProcessAction, sink::Bell};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};

const PAIRS: usize = 40;
const SPAWNS: u32 = 400;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let Some(probes) = Probes::start(&everything()) else { return };
    probes.stop();
    exec_loop("all processes recorded", &everything());
    exec_loop("processes of the host left out", &EbpfConfig::default());
    by_probe();
    idle();
    throughput();
    overload();
}

struct Probes {
    feed: Feed,
    sinks: KernelSinks,
    follower: Follower,
}

fn everything() -> EbpfConfig {
    EbpfConfig { host_processes: true, max_events_per_second: 0, ..EbpfConfig::default() }
}

impl Probes {
    fn start(config: &EbpfConfig) -> Option<Self> {
        let bell = Bell::default();
        let feed = Feed::new("ebpf", "");
        let sinks = KernelSinks {
            processes: Sink::new(1 << 16, bell.clone()),
            sockets: Sink::new(1 << 16, bell.clone()),
            ooms: Sink::new(1 << 10, bell),
        };
        let follower = follow(config, feed.clone(), sinks.clone()).unwrap();
        let Some(follower) = follower else {
            println!("not measured: {} ({})", feed.status().last_error, feed.status().hint);
            return None;
        };
        Some(Self { feed, sinks, follower })
    }

    fn stop(self) -> (Feed, KernelSinks) {
        self.follower.stop();
        (self.feed, self.sinks)
    }
}

/// Time of one spawn: by the clock on the wall, and of the processors, which others at work disturb less.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    processor: f64,
}

fn spawn_loop() -> Took {
    // As long a rest before every loop, so that the scheduler owes none of them more.
    thread::sleep(Duration::from_millis(60));
    let (start, used) = (Instant::now(), processor_seconds());
    for _ in 0..SPAWNS {
        Command::new("/bin/busybox").arg("true").status().unwrap();
    }
    let each = 1e6 / f64::from(SPAWNS);
    Took { wall: start.elapsed().as_secs_f64() * each, processor: (processor_seconds() - used) * each }
}

/// What this thread and its children, which have ended, used.
fn processor_seconds() -> f64 {
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    [UsageWho::RUSAGE_THREAD, UsageWho::RUSAGE_CHILDREN]
        .map(|who| getrusage(who).unwrap())
        .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()))
        .iter()
        .sum()
}

fn exec_loop(what: &str, config: &EbpfConfig) {
    spawn_loop();
    let measure_with = || {
        let probes = Probes::start(config).unwrap();
        // The first events of the host's cgroups are what makes them quiet.
        Command::new("/bin/busybox").arg("true").status().unwrap();
        let took = spawn_loop();
        probes.stop();
        took
    };
    let pairs: Vec<(Took, Took)> = (0..PAIRS)
        .map(|pair| {
            // Either goes first as often as the other.
            if pair % 2 == 0 {
                let off = spawn_loop();
                (off, measure_with())
            } else {
                let on = measure_with();
                (spawn_loop(), on)
            }
        })
        .collect();
    for (clock, of) in [("wall", (|took| took.wall) as fn(Took) -> f64), ("processor", |took| took.processor)] {
        println!(
            "fork+exec+exit, {what}, {clock}: {} µs without, {} µs with probes; {} % more (n = {PAIRS})",
            spread(pairs.iter().map(|(off, _)| of(*off)).collect()),
            spread(pairs.iter().map(|(_, on)| of(*on)).collect()),
            spread(pairs.iter().map(|(off, on)| (of(*on) / of(*off) - 1.0) * 100.0).collect())
        );
    }
}

/// Median, and the quartiles around it.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    format!("{:.1} [{:.1}, {:.1}]", at(2), at(1), at(3))
}

fn by_probe() {
    let _statistics = enable_stats(Stats::RunTime).unwrap();
    let probes = Probes::start(&everything()).unwrap();
    for _ in 0..5 {
        spawn_loop();
    }
    listen_loop(20_000);
    for program in loaded_programs().flatten().filter(|p| p.name().starts_with(b"on_") && p.run_count() > 0) {
        let each = program.run_time().as_nanos() as f64 / program.run_count() as f64;
        println!("{}: {each:.0} ns each ({} runs)", String::from_utf8_lossy(program.name()), program.run_count());
    }
    probes.stop();
}

/// Two records each: it listens, it closes.
fn listen_loop(times: u64) {
    for _ in 0..times {
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    }
}

fn idle() {
    let before = memory();
    let probes = Probes::start(&EbpfConfig::default()).unwrap();
    thread::sleep(Duration::from_secs(1));
    let (wakeups, ticks) = thread_use();
    thread::sleep(Duration::from_secs(10));
    let (more_wakeups, more_ticks) = thread_use();
    println!(
        "idle: {:.1} wakeups/s, {:.2} % of a core; memory of the process {before} kB before, {} kB with probes",
        (more_wakeups - wakeups) as f64 / 10.0,
        (more_ticks - ticks) as f64 / 10.0,
        memory()
    );
    probes.stop();
}

/// Voluntary switches and clock ticks of the thread that follows the ring.
fn thread_use() -> (u64, u64) {
    let is_ours = |task: &std::path::Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "mayfly-ebpf");
    let task = fs::read_dir("/proc/self/task").unwrap().flatten().map(|e| e.path()).find(|t| is_ours(t)).unwrap();
    let status = fs::read_to_string(task.join("status")).unwrap();
    let switches = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap();
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (switches, fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

fn throughput() {
    let probes = Probes::start(&everything()).unwrap();
    let (times, start) = (150_000, Instant::now());
    listen_loop(times);
    let took = start.elapsed();
    let (feed, _) = probes.stop();
    let status = feed.status();
    println!(
        "throughput: {:.0} records/s for {:.1} s from one core, {} received, {} lost; memory after {} kB",
        2.0 * times as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        status.received,
        status.lost_in_kernel,
        memory()
    );
}

/// More than the smallest ring and a limit let through: every record must be in one of the accounts.
fn overload() {
    for (what, config) in [
        ("a ring of 64 KiB", EbpfConfig { ring_kib: 64, ..everything() }),
        ("a limit of 1000/s", EbpfConfig { max_events_per_second: 1000, ..everything() }),
    ] {
        let probes = Probes::start(&config).unwrap();
        let times = 100_000;
        listen_loop(times);
        let (feed, sinks) = probes.stop();
        let throttled: Vec<_> =
            sinks.processes.drain(usize::MAX).into_iter().map(|r| r.item).filter(|e| e.action == ProcessAction::Throttled).collect();
        let shed: i64 = throttled.iter().filter_map(|e| e.shed).sum();
        let status = feed.status();
        println!(
            "overload, {what}: produced {} + others of this machine; received {} (of them {} throttled rows) + lost {} + shed {shed} = {}",
            2 * times,
            status.received,
            throttled.len(),
            status.lost_in_kernel,
            i64::try_from(status.received + status.lost_in_kernel).unwrap() - i64::try_from(throttled.len()).unwrap() + shed
        );
    }
}
