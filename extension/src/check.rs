//! `mayfly check`: says what is wrong with a configuration file, without using it.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use mayfly_history::chain;

use crate::{
    asking,
    config::{self, ConfigError},
};

/// Exit code 0 if every line of the file is accepted, else 1.
pub fn run(file: Option<&Path>) -> io::Result<ExitCode> {
    let mut loaded = config::load(file);
    if let Some(path) = &loaded.path {
        let refused = asking::refused(&loaded.config).into_iter();
        let refused = refused.map(|refused| ConfigError::Line { path: path.clone(), line: refused.line, message: refused.message() });
        loaded.errors.extend(refused);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_right() {
        let loaded = config::load(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/mayfly.toml.example"))));
        assert!(
            loaded.errors.is_empty() && asking::refused(&loaded.config).is_empty(),
            "{:?} {:?}",
            loaded.errors,
            asking::refused(&loaded.config)
        );
        assert_eq!(loaded.config.trigger.len(), 4);
    }
}
