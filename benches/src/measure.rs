//! Clocks and memory of a benchmark, and its table of figures.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

/// The time that `work` takes, and its result.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed(), result)
}

/// CPU time of this thread so far: unlike wall time it does not count what other programs do.
pub fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// The median and the longest of several runs.
pub fn spread(mut runs: Vec<Duration>) -> (Duration, Duration) {
    runs.sort_unstable();
    (runs.get(runs.len() / 2).copied().unwrap_or_default(), runs.last().copied().unwrap_or_default())
}

/// Resident memory of this process in MiB: now, and at its highest.
pub fn resident_mib() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    (field("VmRSS:").unwrap_or_default() / 1024.0, field("VmHWM:").unwrap_or_default() / 1024.0)
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Figure {
    pub claim: &'static str,
    pub measured: String,
    /// What it must be.
    pub bound: &'static str,
    pub kept: bool,
    /// The same with what one would take otherwise.
    pub alternative: String,
}

/// The figures as a table in plain text.
pub fn table(title: &str, alternative: &str, figures: &[Figure]) -> String {
    let mut text = format!("{title}\n\n");
    let _ = writeln!(text, "{:<52} {:>22} {:>16}   {:<4} {alternative}", "", "measured", "bound", "");
    for f in figures {
        let _ = writeln!(
            text,
            "{:<52} {:>22} {:>16}   {:<4} {}",
            f.claim,
            f.measured,
            f.bound,
            if f.kept { "ok" } else { "MISS" },
            f.alternative
        );
    }
    text
}
