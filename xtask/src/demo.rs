//! The demonstration. The tests' harness does the work: it knows how to start a private dockerd.

use crate::process::{self, Result, cargo};

pub(crate) fn run(containers: usize) -> Result {
    process::run(&mut cargo(&["build", "--package", "mayfly", "--package", "mayfly-tests"]))?;
    process::run(&mut cargo(&["run", "--quiet", "--package", "mayfly-tests", "--bin", "demo", "--", &containers.to_string()]))
}
