//! What the probes cost, and what they carry: `cargo bench -p mayfly-ebpf [-- SECTION…]`. Needs root.
//!
//! Prints, of one run on one machine: the time of fork + exec + exit with probes and without, in interleaved pairs;
//! nanoseconds by probe from the kernel's own statistics; wakeups and memory while idle; events a second without loss;
//! and the accounts of a burst that is too much.

#![expect(clippy::print_stdout, reason = "a benchmark's output")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what it cannot do")]
#![expect(clippy::cast_precision_loss, reason = "counts for people to read")]

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Btf, EbpfLoader, include_bytes_aligned,
    programs::{BtfTracePoint, loaded_programs},
    sys::{Stats, enable_stats},
};
use mayfly_ebpf::{EbpfConfig, Follower, KernelSinks, follow};
use mayfly_history::{Feed, Sink, process::ProcessAction, sink::Bell};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeVal, TimeValLike},
    },
};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

const PAIRS: usize = 40;
const SPAWNS: u32 = 400;
const ROUNDS: usize = 15;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let Some(probes) = Probes::start(&everything()) else { return };
    probes.stop();
    let sections: [(&str, fn()); 8] = [
        ("loop", || exec_loop("all processes recorded", &everything())),
        ("quiet", || exec_loop("processes of the host left out", &EbpfConfig::default())),
        ("probes", by_probe),
        ("floor", floor),
        ("calls", any_call),
        ("idle", idle),
        ("throughput", throughput),
        ("overload", overload),
    ];
    // A word picks a section, more of them several.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, measure) in sections {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
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
        Self::with_room(config, 1 << 16)
    }

    /// With sinks that hold so much, an eighth of it of one cgroup.
    fn with_room(config: &EbpfConfig, room: usize) -> Option<Self> {
        Self::with_mounts(config, room, false)
    }

    fn with_mounts(config: &EbpfConfig, room: usize, mounts: bool) -> Option<Self> {
        let bell = Bell::default();
        let feed = Feed::new("ebpf", "");
        let sinks = KernelSinks {
            processes: Sink::new(room, bell.clone()),
            sockets: Sink::new(room, bell.clone()),
            ooms: Sink::new(1 << 10, bell.clone()),
            mounts: mounts.then(|| Sink::new(room, bell.clone())),
            containers: Sink::new(1 << 14, bell),
            directory: mayfly_history::recorder::Directory::default(),
            blind_since: None,
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

/// By the kernel's own statistics, in rounds, because others at work on the machine slow some of them.
fn by_probe() {
    let _statistics = enable_stats(Stats::RunTime).unwrap();
    let probes = Probes::start(&everything()).unwrap();
    let used = || -> BTreeMap<String, (Duration, u64)> {
        let ours = loaded_programs().flatten().filter(|program| program.name().starts_with(b"on_"));
        ours.map(|program| (String::from_utf8_lossy(program.name()).into_owned(), (program.run_time(), program.run_count()))).collect()
    };
    let mut each: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = used();
        spawn_loop();
        listen_loop(2000);
        for (name, (time, runs)) in used() {
            let (time_before, runs_before) = before.get(&name).copied().unwrap_or_default();
            if runs > runs_before {
                each.entry(name).or_default().push((time - time_before).as_nanos() as f64 / (runs - runs_before) as f64);
            }
        }
    }
    for (name, rounds) in each {
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{name}: {} ns each, {least:.0} at least ({} rounds)", spread(rounds.clone()), rounds.len());
    }
    probes.stop();
}

/// What a program costs that does next to nothing at the same place: no probe can cost less.
fn floor() {
    static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/floor.o"));
    let _statistics = enable_stats(Stats::RunTime).unwrap();
    let btf = Btf::from_sys_fs().unwrap();
    for (name, what) in
        [("nothing", "that does nothing"), ("time", "that reads the clock"), ("time_and_record", "that writes it to the ring")]
    {
        let rounds = (0..ROUNDS)
            .map(|_| {
                let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(OBJECT).unwrap();
                let program: &mut BtfTracePoint = ebpf.program_mut(name).unwrap().try_into().unwrap();
                program.load("sched_process_exec", &btf).unwrap();
                program.attach().unwrap();
                spawn_loop();
                let info = program.info().unwrap();
                info.run_time().as_nanos() as f64 / info.run_count() as f64
            })
            .collect();
        println!("a program at an exec {what}: {} ns each ({ROUNDS} rounds)", spread(rounds));
    }
}

/// Two records each: it listens, it closes.
fn listen_loop(times: u64) {
    for _ in 0..times {
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    }
}

/// Probes of calls that mount make the kernel look twice at every call of every process.
fn any_call() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    if fs::read_dir("/sys/kernel/tracing").unwrap().next().is_none() {
        mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None).unwrap();
    }
    let calls = || {
        let (times, start) = (400_000, Instant::now());
        for _ in 0..times {
            std::hint::black_box(rustix::process::getppid());
        }
        start.elapsed().as_nanos() as f64 / f64::from(times)
    };
    let pairs: Vec<(f64, f64)> = (0..PAIRS)
        .map(|_| {
            let off = calls();
            let probes = Probes::with_mounts(&everything(), 1 << 10, true).unwrap();
            let on = calls();
            probes.stop();
            (off, on)
        })
        .collect();
    println!(
        "any system call: {} ns without, {} ns with probes of calls that mount (n = {PAIRS})",
        spread(pairs.iter().map(|(off, _)| *off).collect()),
        spread(pairs.iter().map(|(_, on)| *on).collect())
    );
}

fn idle() {
    let before = memory();
    let probes = Probes::start(&EbpfConfig::default()).unwrap();
    thread::sleep(Duration::from_secs(1));
    let (wakeups, ran) = thread_use();
    thread::sleep(Duration::from_secs(10));
    let (more_wakeups, ran_then) = thread_use();
    println!(
        "idle: {:.1} wakeups/s, {:.3} % of a core; memory of the process {before} kB before, {} kB with probes",
        (more_wakeups - wakeups) as f64 / 10.0,
        (ran_then - ran) * 10.0,
        memory()
    );
    probes.stop();
}

/// Voluntary switches of the thread that follows the ring, and the seconds that it ran.
fn thread_use() -> (u64, f64) {
    let is_ours = |task: &std::path::Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "mayfly-ebpf");
    // It gives itself its name, so it may not have it yet.
    let task = loop {
        match fs::read_dir("/proc/self/task").unwrap().flatten().map(|e| e.path()).find(|t| is_ours(t)) {
            Some(task) => break task,
            None => thread::yield_now(),
        }
    };
    let status = fs::read_to_string(task.join("status")).unwrap();
    let switches = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap();
    let ran = fs::read_to_string(task.join("schedstat")).unwrap();
    (switches, ran.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9)
}

fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// What one core can produce, and what the reader could take: it is seldom the reader that is at its limit.
fn throughput() {
    carry("sockets", || listen_loop(150_000));
    carry("processes", || {
        for _ in 0..10 {
            spawn_loop();
        }
    });
}

fn carry(what: &str, produce: impl Fn()) {
    // Nothing is rejected: that would be less work.
    let probes = Probes::with_room(&everything(), 8 * 400_000).unwrap();
    let ((_, ran), start) = (thread_use(), Instant::now());
    produce();
    let took = start.elapsed().as_secs_f64();
    // Long enough to read the rest, too short for anything else.
    thread::sleep(Duration::from_millis(50));
    let reader = thread_use().1 - ran;
    let (feed, _) = probes.stop();
    let status = feed.status();
    println!(
        "throughput, {what}: {:.0} records/s for {took:.1} s from one core, {} received, {} lost; the reader took {reader:.3} s of a core, \
         enough for {:.0} records/s; memory after {} kB",
        status.received as f64 / took,
        status.received,
        status.lost_in_kernel,
        status.received as f64 / reader,
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
