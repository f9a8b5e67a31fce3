//! The store under a million events and a million intervals, beside plain SQLite tables with the same columns.
//!
//! `cargo bench -p mayfly-benches --bench store [EVENTS [CONTAINERS]]`; ends with 1 if a bound is missed.

mod events;
mod intervals;
mod plain;

use std::{env, error::Error, process::ExitCode};

use mayfly_benches::measure::table;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 2025-11-01T00:00:00Z.
const BEGIN: i64 = 1_761_955_200_000_000_000;

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Outcome<ExitCode> {
    let sizes: Vec<usize> = env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (count, containers) = (sizes.first().copied().unwrap_or(1_000_000), sizes.get(1).copied().unwrap_or(250_000));
    let dir = tempfile::tempdir()?;
    let mut figures = events::measure(&dir.path().join("events"), count)?;
    figures.extend(intervals::measure(&dir.path().join("intervals"), containers)?);
    let title = format!("{count} events, {} intervals of {containers} containers", containers * 4);
    println!("{}", table(&title, "plain SQLite rows", &figures));
    Ok(if figures.iter().all(|f| f.kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
