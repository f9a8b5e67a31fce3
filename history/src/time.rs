//! Clocks: everything recorded is UTC, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

/// UNIX time in nanoseconds, UTC.
pub type Nanos = i64;

fn read(clock: ClockId) -> Nanos {
    let t = clock_gettime(clock);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// The wall clock now.
pub fn now() -> Nanos {
    read(ClockId::Realtime)
}

/// Nanoseconds since boot, suspended time included; never steps.
pub fn boot_nanos() -> i64 {
    read(ClockId::Boottime)
}

/// The kernel's random id of this boot, or an empty text where /proc does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}
