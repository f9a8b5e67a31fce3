//! Load: many short-lived containers, by several workers at once.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// Calls `job(0)` … `job(runs - 1)` from `workers` threads; gives how long all took, or the first error.
pub fn churn(runs: usize, workers: usize, job: impl Fn(usize) -> Result<()> + Sync) -> Result<Duration> {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        break;
                    }
                    if let Err(error) = job(run) {
                        next.store(runs, Ordering::Relaxed);
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(began.elapsed()),
    }
}
