//! How processes ended, from the process connector: the plain tracepoints do not tell.
//!
//! The kernel tells the connector a moment after the tracepoint, so whoever reads of an exit may have to wait for it.

use std::{collections::HashMap, io, time::Instant};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};

use crate::{
    connector::{Connector, Heard, Told},
    patience::Patience,
};

/// Statuses that wait for whoever asks; those of processes that are left out are never asked for.
const MOST: usize = 16_384;
/// How long a status is kept when there are that many: whoever asks does so within a tick.
const RECENT_NS: u64 = 1_000_000_000;

/// The statuses that came and were not asked for yet.
#[derive(Debug)]
pub(crate) struct Statuses {
    connector: Connector,
    /// With the time on the monotonic clock.
    told: HashMap<u32, (u64, u32)>,
    patience: Patience,
    /// How often statuses found no room in the socket, since that was asked for.
    overruns: u64,
}

impl Statuses {
    /// # Errors
    /// The kernel has no connector, or not for us.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { connector: Connector::open()?, told: HashMap::new(), patience: Patience::new(Instant::now()), overruns: 0 })
    }

    /// Takes what waits in the socket, which holds only so much.
    pub(crate) fn collect(&mut self) -> io::Result<()> {
        while let Some(heard) = self.connector.next()? {
            let (stamp, pid, status) = match heard {
                Heard::Message(stamp, Told::Exit { pid, status }) => (stamp, pid, status),
                // What is missing may be what would be waited for.
                Heard::Overrun => {
                    self.overruns += 1;
                    self.patience.lose(Instant::now());
                    continue;
                }
                Heard::Message(..) | Heard::Garbage => continue,
            };
            if self.told.len() >= MOST {
                let recently_ns = stamp.monotonic_ns.saturating_sub(RECENT_NS);
                self.told.retain(|_, (told_ns, _)| *told_ns >= recently_ns);
            }
            self.told.insert(pid, (stamp.monotonic_ns, status));
        }
        Ok(())
    }

    /// How often statuses were lost since the last call.
    pub(crate) const fn take_overruns(&mut self) -> u64 {
        std::mem::replace(&mut self.overruns, 0)
    }

    /// The status of a process that has ended just now, as wait(2) reports it. `None`: it was not told. `born_boot_ns`: 0 if it was there
    /// before anybody listened.
    pub(crate) fn of(&mut self, pid: u32, born_boot_ns: u64) -> io::Result<Option<u32>> {
        // What is older is of another process, which had this pid before. In this order an interruption between the two readings lets
        // in a little more, and keeps nothing out.
        let monotonic_ns = nanos(ClockId::Monotonic);
        let suspended_ns = nanos(ClockId::Boottime).saturating_sub(monotonic_ns);
        let born_ns = born_boot_ns.saturating_sub(suspended_ns);
        loop {
            self.collect()?;
            if let Some((_, status)) = self.told.remove(&pid).filter(|(told_ns, _)| *told_ns >= born_ns) {
                return Ok(Some(status));
            }
            let begun = Instant::now();
            let left = self.patience.left(begun);
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::new(&self.connector, PollFlags::IN)], Some(&timeout))?;
            self.patience.spend(begun.elapsed());
        }
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
