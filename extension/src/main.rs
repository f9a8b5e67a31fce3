//! The binary; see `mayfly --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mayfly::run(mayfly::cli::parse())
}
