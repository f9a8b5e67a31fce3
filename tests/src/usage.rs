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
}

pub fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of all.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).ok_or_else(|| format!("unexpected: {stat}"));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let resident = line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("unexpected: {status}"))?;
    Ok(Usage { ticks: field(11)? + field(12)?, resident_kb: resident })
}
