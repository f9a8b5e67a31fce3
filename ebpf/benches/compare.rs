//! What three watchers see of the same short processes: `cargo bench -p mayfly-ebpf --bench compare`. Needs root and bpftrace.
//!
//! Mayfly's probes; bpftrace's `execsnoop.bt`; and a poller that lists /proc each second, as a scheduled query of osquery's
//! `processes` table does, though seldom as often.

#![expect(clippy::print_stdout, reason = "a benchmark's output")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what it cannot do")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly_ebpf::{EbpfConfig, KernelSinks, follow};
use mayfly_history::{
    Feed,
    process::ProcessAction,
    recorder::{Handle, Sinks},
    sink::Bell,
};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

const PROCESSES: u32 = 600;
const POLL: Duration = Duration::from_secs(1);
/// Every process has it among its arguments.
const MARK: &str = "mayfly-compare-";

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let feed = Feed::new("ebpf", "");
    let sinks = KernelSinks::of(&Handle::detached(Sinks::new(Bell::default())));
    let config = EbpfConfig { host_processes: true, max_events_per_second: 0, ..EbpfConfig::default() };
    let Some(follower) = follow(&config, feed.clone(), sinks.clone()).unwrap().filter(|_| feed.status().state == "running") else {
        println!("not measured: {} ({})", feed.status().last_error, feed.status().hint);
        return;
    };
    let snooper = Snooper::start();
    let done = Arc::new(AtomicBool::new(false));
    let poller = thread::spawn({
        let done = Arc::clone(&done);
        move || poll(&done)
    });

    let begun = Instant::now();
    let mut told = BTreeSet::new();
    for number in 0..PROCESSES {
        // From a millisecond to a quarter of a second, as jobs in containers live.
        let lives = ["0.001", "0.001", "0.01", "0.05", "0.25"][number as usize % 5];
        let script = format!("sleep {lives}; : {MARK}{number}-");
        Command::new("/bin/busybox").args(["sh", "-c", &script]).status().unwrap();
        told.extend(
            sinks.processes.drain(usize::MAX).iter().filter(|r| r.item.action == ProcessAction::Exec).filter_map(|r| mark(&r.item.cmdline)),
        );
    }
    let took = begun.elapsed();
    done.store(true, Relaxed);
    follower.stop();
    told.extend(sinks.processes.drain(usize::MAX).iter().filter_map(|r| mark(&r.item.cmdline)));
    println!("{PROCESSES} shell jobs of 1 to 250 ms within {:.1} s", took.as_secs_f64());
    println!("  Mayfly's probes: {} executions ({} lost in the kernel)", told.len(), feed.status().lost_in_kernel);
    match snooper.map(Snooper::stop) {
        Some(seen) => println!("  bpftrace execsnoop.bt: {seen} executions, without outcome, user, cgroup or container"),
        None => println!("  bpftrace execsnoop.bt: not installed (apt-get install bpftrace)"),
    }
    println!("  polling /proc every {} s: {} of them, while they lived", POLL.as_secs(), poller.join().unwrap().len());
}

/// The number of a marked process, from its arguments.
fn mark(arguments: &str) -> Option<u32> {
    arguments.split_once(MARK)?.1.split_once('-')?.0.parse().ok()
}

fn poll(done: &AtomicBool) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    while !done.load(Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            // It may be gone already.
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            seen.extend(mark(&String::from_utf8_lossy(&arguments)));
        }
        thread::sleep(POLL);
    }
    seen
}

struct Snooper {
    child: Child,
    reader: thread::JoinHandle<usize>,
}

impl Snooper {
    /// Starts it, and waits until it listens.
    fn start() -> Option<Self> {
        let script =
            ["/usr/sbin/execsnoop.bt", "/usr/share/bpftrace/tools/execsnoop.bt"].into_iter().find(|path| Path::new(path).exists())?;
        // It wants tracefs, which need not be mounted here: it gets mounts of its own.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        for (filesystem, folder) in [("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")] {
            if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
                mount(filesystem, folder, filesystem, MountFlags::empty(), None).unwrap();
            }
        }
        let mut child = Command::new("bpftrace").arg(script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("TIME"))?;
        let reader = thread::spawn(move || lines.map_while(Result::ok).filter_map(|line| mark(&line)).collect::<BTreeSet<_>>().len());
        Some(Self { child, reader })
    }

    /// Asks it to end, which makes it print what waits; how many marked processes it told.
    fn stop(mut self) -> usize {
        thread::sleep(Duration::from_secs(2));
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap();
        self.reader.join().unwrap()
    }
}
