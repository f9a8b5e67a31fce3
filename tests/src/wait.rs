//! Waiting for a condition, never for a while.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// Asks `probe` until it gives something, at most for `within`. What it last answered instead is in the error.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= deadline => return Err(format!("no {what} within {within:?}: {last}").into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
