//! Follows the process connector, where the probes cannot be loaded.

use std::{sync::Arc, time::Instant};

use mayfly_history::{Feed, Sink, feed::cause, now, process::ProcessEvent};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    connector::{Connector, Heard, Processes},
    follow::{ACCOUNTING, Follower, Waker, spawn},
};

/// Messages that are read before something else gets its turn.
const BATCH: usize = 4096;

/// Follows the connector on a thread of its own. `None`: the kernel does not tell us.
pub(crate) fn fall_back(host_processes: bool, feed: &Feed, sink: &Sink<ProcessEvent>) -> std::io::Result<Option<Follower>> {
    let connector = match Connector::open() {
        Ok(connector) => connector,
        Err(error) => {
            tracing::debug!(%error, "the process connector cannot be had either");
            return Ok(None);
        }
    };
    let reader = Reader {
        connector,
        processes: Processes::new(host_processes),
        feed: feed.clone(),
        sink: sink.clone(),
        lost: 0,
        overrun: false,
        at_ns: now(),
    };
    spawn("mayfly-connector", move |stop| {
        let waker = Waker::new(&reader.connector, &Arc::clone(stop))?;
        Ok(move || reader.run(&waker))
    })
    .map(Some)
}

struct Reader {
    connector: Connector,
    processes: Processes,
    feed: Feed,
    sink: Sink<ProcessEvent>,
    /// Not told yet.
    lost: u64,
    overrun: bool,
    at_ns: i64,
}

impl Reader {
    fn run(mut self, waker: &Waker) {
        let mut next_accounts = Instant::now() + ACCOUNTING;
        loop {
            let more = match self.drain() {
                Ok(read) => read == BATCH,
                Err(error) => {
                    self.feed.failed(format!("cannot read the process connector: {error}"), "");
                    return;
                }
            };
            let now = Instant::now();
            if now >= next_accounts {
                self.account();
                next_accounts = now + ACCOUNTING;
            }
            if more {
                continue;
            }
            match waker.wait(next_accounts.saturating_duration_since(now)) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    self.feed.failed(format!("cannot wait for the process connector: {error}"), "");
                    return;
                }
            }
        }
        // What waits in the socket is read; nothing could be told of an error any more.
        let _ = self.drain();
        self.account();
    }

    fn drain(&mut self) -> std::io::Result<usize> {
        let apart = now().saturating_sub(monotonic_nanos());
        let mut read = 0;
        while read < BATCH
            && let Some(heard) = self.connector.next()?
        {
            read += 1;
            match heard {
                Heard::Message(stamp, told) => {
                    self.lost += u64::from(self.processes.missed_before(stamp));
                    if let Some(event) = self.processes.hear(told, apart.saturating_add_unsigned(stamp.monotonic_ns)) {
                        self.sink.push(&self.feed, event);
                    }
                }
                Heard::Garbage => self.feed.reject("a message of the process connector cannot be read"),
                Heard::Overrun => self.overrun = true,
            }
        }
        Ok(read)
    }

    /// Tells what did not come through. How much that was shows only in the next message of the same processor.
    fn account(&mut self) {
        let at_ns = now();
        if self.lost > 0 || self.overrun {
            self.feed.count_lost_in_kernel(self.lost);
            let detail = format!("{} messages of the process connector found no room", self.lost);
            self.feed.blind(cause::RING_FULL, self.at_ns, Some(at_ns), 0, detail);
        }
        (self.lost, self.overrun, self.at_ns) = (0, false, at_ns);
    }
}

fn monotonic_nanos() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
