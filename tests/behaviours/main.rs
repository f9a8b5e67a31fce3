//! What Mayfly promises, shown on real daemons: one module per behaviour.
//!
//! Each test has the machine to itself, however many threads the test runner has: they measure and they load it. `MAYFLY_PROVE=1`
//! (`cargo xtask prove`) runs the full figures. What a test needs and does not find fails it, and says what to install.

mod accounts;
mod addresses;
mod bad_input;
mod captures;
mod churn;
mod containerd_restart;
mod crash;
mod degraded;
mod devices;
mod dhcp;
mod discovery;
mod docker_restart;
mod identity;
mod idle;
mod jobs;
mod kernel;
mod leases;
mod manager;
mod mounts;
mod osquery;
mod podman_restart;
mod pods;
mod ports;
mod private_daemons;
mod storm;
mod triggers;
mod uids;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use mayfly_tests::{
    Result,
    daemon::{Containerd, Docker},
};

/// Waits until no other test runs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much: what suffices to see that it works, or the full figure.
fn amount(usual: usize, full: usize) -> usize {
    if std::env::var_os("MAYFLY_PROVE").is_some() { full } else { usual }
}

/// The daemon of all tests that do not stop theirs.
fn docker() -> Result<&'static Docker> {
    static DOCKER: LazyLock<Result<Docker, String>> = LazyLock::new(|| Docker::start(false).map_err(|error| error.to_string()));
    DOCKER.as_ref().map_err(|error| error.clone().into())
}

fn containerd() -> Result<&'static Containerd> {
    static CONTAINERD: LazyLock<Result<Containerd, String>> = LazyLock::new(|| Containerd::start().map_err(|error| error.to_string()));
    CONTAINERD.as_ref().map_err(|error| error.clone().into())
}
