//! The store under a million events and two million intervals, of containers and of addresses, beside plain SQLite tables with the same columns.
//!
//! `cargo bench -p mayfly-benches --bench store [EVENTS [CONTAINERS [LEASES]]]`, 0 to leave one out; ends with 1 if a bound is missed.

mod events;
mod intervals;
mod loads;
mod plain;

use std::{env, error::Error, process::ExitCode};

use mayfly_benches::measure::table;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 2025-11-01T00:00:00Z.
const BEGIN: i64 = 1_761_955_200_000_000_000;

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Outcome<ExitCode> {
    let sizes: Vec<u32> = env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let size = |at: usize, usual: u32| sizes.get(at).copied().unwrap_or(usual);
    let (events, containers, leases) = (size(0, 1_000_000) as usize, size(1, 250_000) as usize, size(2, 1_000_000));
    let dir = tempfile::tempdir()?;
    let mut figures = Vec::new();
    if events > 0 {
        figures.extend(events::measure(&dir.path().join("events"), events)?);
    }
    if containers > 0 {
        figures.extend(intervals::measure(&dir.path().join("containers"), &loads::containers(containers))?);
    }
    if leases > 0 {
        figures.extend(intervals::measure(&dir.path().join("addresses"), &loads::addresses(leases))?);
    }
    let title = format!("{events} events, {} intervals of {containers} containers, {leases} leases", containers * 4);
    println!("{}", table(&title, "plain SQLite rows", &figures));
    Ok(if figures.iter().all(|f| f.kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
