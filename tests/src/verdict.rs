//! What is wrong with many rows, counted by kind, so that a failure says how much and shows an example of each.

use std::{collections::BTreeMap, fmt};

use crate::Result;

#[derive(Debug, Default)]
pub struct Verdict(BTreeMap<String, (usize, String)>);

impl Verdict {
    /// Notes a `fault` unless `holds`; `example` says where.
    pub fn check(&mut self, holds: bool, fault: impl Into<String>, example: impl FnOnce() -> String) {
        if !holds {
            self.0.entry(fault.into()).or_insert_with(|| (0, example())).0 += 1;
        }
    }

    /// How often a fault was found.
    pub fn count(&self, fault: &str) -> usize {
        self.0.get(fault).map_or(0, |(count, _)| *count)
    }

    /// All faults, or nothing.
    pub fn pass(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(self.to_string().into()) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, (count, example)) in &self.0 {
            writeln!(f, "{count} × {fault}, e.g. {example}")?;
        }
        Ok(())
    }
}
