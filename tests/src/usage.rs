//! What a process costs, as the kernel counts it.

use std::fs;

use crate::Result;

/// Of one process, now.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time so far, in ticks of 10 ms.
    pub ticks: u64,
    /// Resident memory.
    pub resident_kb: u64,
    /// How often a thread of it waited, and so was woken.
    pub waits: u64,
}

pub fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of all.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).ok_or_else(|| format!("unexpected: {stat}"));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let resident = line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("unexpected: {status}"))?;
    Ok(Usage { ticks: field(11)? + field(12)?, resident_kb: resident, waits: waits(pid)? })
}

/// Over all threads that are there now.
fn waits(pid: u32) -> Result<u64> {
    let mut waits = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One may end while it is looked at.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(waits)
}
