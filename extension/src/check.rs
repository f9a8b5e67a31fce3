//! `mayfly check`: says what is wrong with a configuration file, without using it.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use mayfly_history::chain;

use crate::config;

/// Exit code 0 if every line of the file is accepted, else 1.
pub fn run(file: Option<&Path>) -> io::Result<ExitCode> {
    let loaded = config::load(file);
    let mut err = io::stderr().lock();
    for error in &loaded.errors {
        writeln!(err, "{}", chain(error))?;
    }
    if !loaded.errors.is_empty() {
        writeln!(err, "{} refused; the recorder would leave these lines out and use its defaults", loaded.errors.len())?;
        return Ok(ExitCode::FAILURE);
    }
    match &loaded.path {
        Some(path) => writeln!(io::stdout(), "{}: ok", path.display())?,
        None => writeln!(io::stdout(), "{}: not there; every key has a default", config::DEFAULT_PATH)?,
    }
    Ok(ExitCode::SUCCESS)
}
