//! Notices that the host is about to end.
//!
//! systemd-logind writes a shutdown that is scheduled into `/run/systemd/shutdown/scheduled`, with its time. Its D-Bus signal
//! `PrepareForShutdown` comes together with SIGTERM unless somebody delays the shutdown, so that it tells nothing that the signal does not;
//! `/run/nologin` is there at every boot, too. A cloud that takes a spot instance back tells the instance's metadata service some time before.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mayfly_history::{Nanos, now};
use mayfly_sources::Spot;

use crate::{
    asking::host::Host,
    folders::{Folders, Heard},
    watched::Waker,
};

/// The file that systemd-logind keeps while a shutdown is scheduled, and its folder, made with the first one.
const SCHEDULED: &str = "scheduled";
const SHUTDOWN: &str = "shutdown";

/// How long before a scheduled shutdown the farewells are asked.
const AHEAD: Nanos = 30_000_000_000;
/// How often the metadata service of a spot instance is asked, as the clouds advise.
const BETWEEN_ASKS: Duration = Duration::from_secs(5);
/// How often it is looked whether this is one, until that is known.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);
/// How long before a folder that is not there is looked for again.
const UNWATCHED: Duration = Duration::from_secs(30);

/// A shutdown that is scheduled.
#[derive(Debug)]
pub(super) struct Scheduled {
    run: PathBuf,
    folders: Folders,
    /// The time of the one that was told.
    told: Option<Nanos>,
}

impl Scheduled {
    /// Below `root`, the host's.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        Ok(Self { run: root.join("run/systemd"), folders: Folders::new()?, told: None })
    }

    pub(super) fn waker(&self) -> Waker {
        self.folders.waker()
    }

    fn time(&self) -> Option<Nanos> {
        let text = fs::read_to_string(self.run.join(SHUTDOWN).join(SCHEDULED)).ok()?;
        let micros: Nanos = text.lines().find_map(|line| line.strip_prefix("USEC="))?.parse().ok()?;
        micros.checked_mul(1000)
    }

    /// When to tell of it, if there is one that was not told.
    pub(super) fn due(&self) -> Option<Instant> {
        let at = self.time().filter(|at| self.told != Some(*at))?;
        let left = u64::try_from(at - AHEAD - now()).unwrap_or(0);
        Instant::now().checked_add(Duration::from_nanos(left))
    }

    pub(super) fn told(&mut self) {
        self.told = self.time();
    }

    /// Waits until one is scheduled or taken back, until `deadline`, or until woken.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Heard {
        let is_watched = self.folders.watch(&self.run).is_ok();
        // Not there on most hosts, until the first one is scheduled.
        let _ = self.folders.watch(&self.run.join(SHUTDOWN));
        let again = (!is_watched).then(|| Instant::now() + UNWATCHED);
        let until = [deadline, again].into_iter().flatten().min();
        self.folders.wait_for(&[OsStr::new(SCHEDULED), OsStr::new(SHUTDOWN)], until).unwrap_or_else(|error| {
            tracing::debug!(%error, "nothing tells of a scheduled shutdown");
            std::thread::sleep(BETWEEN_ASKS);
            Heard::Late
        })
    }
}

/// What the cloud of a spot instance says.
#[derive(Debug)]
pub(super) struct Interruptions {
    url: String,
    state_dir: PathBuf,
    /// `None`: not known yet.
    spot: Option<Spot>,
    next: Option<Instant>,
    told: String,
}

impl Interruptions {
    pub(super) fn new(url: &str, state_dir: &Path) -> Self {
        Self { url: url.to_owned(), state_dir: state_dir.to_owned(), spot: None, next: Some(Instant::now()), told: String::new() }
    }

    /// When to ask next; `None`: never again.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A notice that was not told before.
    pub(super) fn ask(&mut self) -> Option<String> {
        if self.next.is_none_or(|next| next > Instant::now()) {
            return None;
        }
        let Some(spot) = &self.spot else {
            self.next = self.look().then(|| Instant::now() + if self.spot.is_some() { BETWEEN_ASKS } else { BETWEEN_LOOKS });
            return None;
        };
        self.next = Some(Instant::now() + BETWEEN_ASKS);
        match spot.notice() {
            Ok(Some(notice)) if notice != self.told => {
                self.told.clone_from(&notice);
                Some(notice)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "the metadata service does not say whether this instance is taken back");
                None
            }
        }
    }

    /// Learns whether this is a spot instance; false: it is none.
    fn look(&mut self) -> bool {
        // Only a host whose cloud is known is asked for it: elsewhere the address may be anybody's.
        let Ok(Some(host)) = Host::look(&self.state_dir) else { return true };
        if host.cloud.is_empty() {
            return true;
        }
        match Spot::find(&host.cloud, &self.url) {
            Ok(found) => {
                self.spot = found;
                self.spot.is_some()
            }
            Err(error) => {
                tracing::debug!(%error, "the metadata service does not say whether this is a spot instance");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduled_shutdown_is_due_half_a_minute_before_and_told_once() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run/systemd");
        fs::create_dir_all(&run).unwrap();
        let mut scheduled = Scheduled::of(root.path()).unwrap();
        assert_eq!(scheduled.due(), None);
        let soon = || Some(Instant::now() + Duration::from_secs(10));
        assert_eq!(scheduled.wait(Some(Instant::now())), Heard::Late);
        fs::create_dir(run.join(SHUTDOWN)).unwrap();
        assert_eq!(scheduled.wait(soon()), Heard::Changed);
        let schedule = |seconds: Nanos| {
            let text = format!("USEC={}\nWARN_WALL=1\nMODE=poweroff\n", now() / 1000 + seconds * 1_000_000);
            fs::write(run.join(SHUTDOWN).join(SCHEDULED), text).unwrap();
        };
        // Its folder is watched from the next wait on; what happened before that is seen all the same.
        assert_eq!(scheduled.wait(Some(Instant::now())), Heard::Late);
        schedule(60);
        assert_eq!(scheduled.wait(soon()), Heard::Changed);
        let left = scheduled.due().unwrap().saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(25) && left <= Duration::from_secs(30), "{left:?}");
        schedule(10);
        assert!(scheduled.due().unwrap() <= Instant::now());
        scheduled.told();
        assert_eq!(scheduled.due(), None);
        fs::remove_file(run.join(SHUTDOWN).join(SCHEDULED)).unwrap();
        assert_eq!(scheduled.due(), None, "it was taken back");
    }
}
