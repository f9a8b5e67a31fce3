//! One mount namespace: the kernel's notices of it, and its table, read again whenever the kernel marks it as changed.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use mayfly_history::{
    Nanos,
    container::ContainerKey,
    feed::cause,
    mounted::{MountChange, MountEvent},
    now,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    book::{Book, Turn},
    hardware::{Behind, Lower},
    mountinfo::{Line, parse},
    tell::EVIDENCE,
    witness::{Watched, Witness},
};
use crate::{process::Process, supervise::Site};

/// Bounds of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) mounts: usize,
}

/// Reading takes this part of the time at most.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A first process has the host's root until shortly before its start: looked at so often, each time after twice the pause.
const ATTEMPTS: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// A namespace, through a process that is in it.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) site: Site,
    pub(super) container: ContainerKey,
    pub(super) process: Process,
    pub(super) bounds: Bounds,
    pub(super) lower: Lower,
    /// `None`: the kernel tells not who mounts.
    pub(super) witness: Option<Arc<Witness>>,
    pub(super) events: mpsc::Sender<MountEvent>,
    /// Since when nobody saw it, where somebody did before.
    pub(super) blind_since: Option<Nanos>,
    /// Mounts that are there when the source begins are told as of then; those of a younger container as of its beginning.
    pub(super) source_ns: Nanos,
}

/// What the table shows and no notice told is told after this, each for itself: the notice may be on its way.
const GRACE: Duration = Duration::from_millis(50);

/// What is known of the mounts.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) inode: String,
    book: Book,
    pub(super) behind: BTreeMap<i64, Behind>,
    rejected: u64,
    /// Up to when everything was told.
    told_ns: Nanos,
    /// Mounts of which the table shows what a notice may explain yet, and since when it does.
    doubts: BTreeMap<i64, Instant>,
}

impl Known {
    /// When the first of the doubts is over.
    fn doubted_until(&self) -> Option<Instant> {
        self.doubts.values().min().map(|since| *since + GRACE)
    }

    /// Keeps what a notice may explain yet, and gives what is to be told. No notice tells of a remount.
    fn settle(&mut self, turns: Vec<Turn>, now: Instant, grace: Duration) -> Vec<Turn> {
        let before = std::mem::take(&mut self.doubts);
        let is_settled = |turn: &Turn| {
            let Some(id) = turn.line.as_ref().filter(|_| turn.change != MountChange::Remount).map(|line| line.id) else { return true };
            let since = before.get(&id).copied().unwrap_or(now);
            let is_over = now >= since + grace;
            if !is_over {
                self.doubts.insert(id, since);
            }
            is_over
        };
        turns.into_iter().filter(is_settled).collect()
    }
}

impl Namespace {
    /// Whether the process came to a root of its own; a container's table is a copy of the host's before.
    pub(super) async fn settles(&self, host: &Path) -> bool {
        for attempt in 0..ATTEMPTS {
            match self.process.on_host_root(host) {
                Ok(false) => return true,
                Ok(true) => sleep(FIRST_PAUSE * (1 << attempt)).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// Follows the namespace until the process ends (a container's) or reading fails.
    pub(super) async fn follow(self) -> io::Result<()> {
        let is_host = self.container.container_id.is_empty();
        let exit = if is_host { None } else { Some(watched(self.process.pidfd()?, Interest::READABLE)?) };
        let table = watched(self.process.mountinfo()?, Interest::PRIORITY)?;
        // Heard of before it is read, so that nothing falls between.
        let notices = self.notices();
        // Counted as long as it is followed.
        let _left_out = self.witness.as_ref().filter(|_| notices.is_none()).map(|witness| witness.leave_out());
        let mut known = self.begin(table.get_ref(), notices.as_ref()).await?;
        loop {
            let doubted = known.doubted_until();
            tokio::select! {
                changed = table.ready(Interest::PRIORITY) => changed?.clear_ready(),
                () = heard(notices.as_ref()) => {}
                () = async { sleep_until(doubted.unwrap_or_else(Instant::now)).await }, if doubted.is_some() => {}
                () = ends(exit.as_ref()) => {
                    self.list(Vec::new(), now(), None, EVIDENCE);
                    return Ok(());
                }
            }
            let begun = Instant::now();
            match self.look(table.get_ref(), notices.as_ref(), &mut known).await {
                Ok(()) => {}
                // The namespace went with its last process.
                Err(_) if !is_host => {
                    known.doubts.clear();
                    continue;
                }
                Err(error) => return Err(error),
            }
            sleep((begun.elapsed() * REST).min(LONGEST_REST)).await;
        }
    }

    /// The kernel's notices of the namespace, where it has any to give: the table tells most of it alone.
    fn notices(&self) -> Option<Watched> {
        let watch = |witness: &Witness| witness.watch(&self.process.mount_namespace()?);
        self.witness.as_deref().map(watch)?.inspect_err(|error| tracing::debug!(%error, "who mounts is not told")).ok()
    }

    /// Tells all mounts that there are.
    async fn begin(&self, table: &OwnedFd, notices: Option<&Watched>) -> io::Result<Known> {
        let is_host = self.container.container_id.is_empty();
        let inode = self.process.namespace("mnt").ok_or(io::ErrorKind::NotFound)?;
        let mut known =
            Known { inode, book: Book::default(), behind: BTreeMap::new(), rejected: 0, told_ns: now(), doubts: BTreeMap::new() };
        let began = self.process.began().filter(|began| !is_host && *began >= self.source_ns);
        let first_ns = began.unwrap_or(known.told_ns);
        let lines = self.read(table, &mut known.rejected)?;
        let behind = self.behind(lines.values().cloned().collect()).await;
        known.behind = lines.keys().copied().zip(behind).collect();
        known.book.set(lines);
        self.name(&mut known, notices).await;
        let facts = known.book.lines().map(|line| self.mount(Some(line), &known)).collect();
        let evidence = if began.is_some() { EVIDENCE } else { "startup" };
        self.list(facts, first_ns, self.blind_since.filter(|_| began.is_none()), evidence);
        if is_host {
            self.site.feed.running();
        }
        Ok(known)
    }

    /// Looks at what changed: the notices tell it in its order and with who did it, the table tells the rest.
    async fn look(&self, table: &OwnedFd, notices: Option<&Watched>, known: &mut Known) -> io::Result<()> {
        let at_ns = now();
        let mut lines = self.read(table, &mut known.rejected)?;
        let (heard, is_lost) = notices.map(Watched::take).unwrap_or_default();
        if is_lost {
            self.site.feed.count_lost_in_kernel(1);
            self.site.feed.blind(cause::STREAM_LAGGED, known.told_ns, Some(at_ns), 0, self.said("mounted more than could be told"));
        }
        if !heard.is_empty() {
            let turns: Vec<_> = heard.into_iter().flat_map(|notice| known.book.hear(notice, self.bounds.mounts)).collect();
            // What was doubted is told by that; what the table shows of the same number now is another matter.
            for line in turns.iter().filter_map(|turn| turn.line.as_ref()) {
                known.doubts.remove(&line.id);
            }
            self.tell(turns, known).await;
            // The table may be older than some of them.
            lines = self.read(table, &mut known.rejected)?;
        }
        let grace = if notices.is_some() && !is_lost { GRACE } else { Duration::ZERO };
        let turns = known.book.compare(&lines, at_ns);
        let turns = known.settle(turns, Instant::now(), grace);
        let is_news = turns.iter().any(|turn| turn.change != MountChange::Remount);
        let doubted = known.doubts.values().min().map(Instant::elapsed).unwrap_or_default();
        known.told_ns = at_ns.saturating_sub(Nanos::try_from(doubted.as_nanos()).unwrap_or(Nanos::MAX));
        self.tell(turns, known).await;
        known.book.set_but(lines, known.doubts.keys());
        if is_news {
            self.name(known, notices).await;
        }
        Ok(())
    }

    /// Learns the numbers that no other mount gets, which the table does not have.
    async fn name(&self, known: &mut Known, notices: Option<&Watched>) {
        if let Some(notices) = notices {
            let numbers = tokio::task::spawn_blocking(notices.numbers(self.bounds.mounts));
            known.book.name(&numbers.await.unwrap_or_default());
        }
    }

    /// Reads the table, again if it changes meanwhile.
    fn read(&self, table: &OwnedFd, rejected: &mut u64) -> io::Result<BTreeMap<i64, Line>> {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            bytes = read_whole(table, self.bounds.bytes)?;
            let mut changed = [PollFd::new(table, PollFlags::PRI)];
            poll(&mut changed, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            if !changed[0].revents().contains(PollFlags::PRI) {
                break;
            }
        }
        let (lines, left_out) = parse(&String::from_utf8_lossy(&bytes), self.bounds.mounts);
        if left_out > *rejected {
            self.site.feed.reject(self.said(&format!("has {left_out} mounts more than are recorded")));
        }
        *rejected = left_out;
        if self.container.container_id.is_empty() {
            self.lower.set(lines.clone());
        }
        Ok(lines)
    }
}

fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` answers the same descriptor until it is dropped.
    #[expect(unsafe_code, reason = "the safe constructor is deprecated: it trusts any `AsRawFd`")]
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}

async fn heard(notices: Option<&Watched>) {
    match notices {
        Some(notices) => notices.heard().await,
        None => std::future::pending().await,
    }
}

async fn ends(exit: Option<&AsyncFd<OwnedFd>>) {
    match exit {
        Some(exit) => drop(exit.readable().await),
        None => std::future::pending().await,
    }
}

/// The whole of a file of /proc from its beginning, up to `most` bytes and then up to the end of a line.
fn read_whole(file: &OwnedFd, most: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while bytes.len() < most {
        match rustix::io::pread(file, &mut chunk[..], bytes.len() as u64)? {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mount_waits_for_its_own_notice_and_a_remount_for_none() {
        let (inode, book) = (String::new(), Book::default());
        let mut known = Known { inode, book, behind: BTreeMap::new(), rejected: 0, told_ns: 0, doubts: BTreeMap::new() };
        let begun = Instant::now();
        let mut settle = |after, shown: &[(i64, MountChange)]| {
            let turn = |(id, change): &(i64, MountChange)| {
                let line = parse(&format!("{id} 0 8:1 / / rw - ext4 /dev/a rw\n"), 1).0.into_values().next();
                Turn { at_ns: 0, change: *change, line, by: None }
            };
            let told = known.settle(shown.iter().map(turn).collect(), begun + after, GRACE);
            told.into_iter().filter_map(|turn| turn.line).map(|line| line.id).collect::<Vec<_>>()
        };
        use MountChange::{Mount, Remount, Unmount};
        assert_eq!(settle(Duration::ZERO, &[(1, Remount), (2, Mount)]), [1]);
        assert!(settle(GRACE / 2, &[(2, Mount), (3, Unmount)]).is_empty());
        assert_eq!(settle(GRACE, &[(2, Mount), (3, Unmount)]), [2], "others that came later do not put it off");
        // A notice told of it meanwhile.
        assert!(settle(GRACE, &[]).is_empty());
        assert!(settle(GRACE * 2, &[(3, Unmount)]).is_empty());
    }
}
