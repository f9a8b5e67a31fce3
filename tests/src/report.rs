//! Figures, for whoever reads along.

use std::io::{self, Write};

/// Prints a line past the test runner, which keeps what passing tests print to itself.
pub fn report(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
