//! The documentation of the tables, which the binary makes from their declarations.

use crate::process::{self, Result, cargo};

/// Writes `docs/tables/*.md` and `docs/schema.json`; with `check`, fails where they differ from what would be written.
pub(crate) fn run(check: bool) -> Result {
    let mode = if check { "--check" } else { "--write" };
    process::run(&mut cargo(&["run", "--quiet", "--package", "mayfly", "--", "schema", mode, "docs"]))
}
