//! From the kernel's time since boot to UNIX time.

use mayfly_history::{Nanos, boot_nanos, now};

/// Slewing moves the two clocks apart by half a microsecond a millisecond at most; below this it is left alone, so that
/// the order and distance of events stays the kernel's.
const TOLERANCE: Nanos = 1_000_000;

/// How far the two clocks are apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    boot_ns: Nanos,
}

impl Clock {
    pub(crate) fn read() -> Self {
        // Twice, and the nearer: we may be interrupted between the two readings.
        let apart = || now() - boot_nanos();
        Self { boot_ns: apart().min(apart()) }
    }

    /// Reads the clocks again: the wall clock may have been set.
    pub(crate) fn follow(&mut self) {
        let read = Self::read();
        if (read.boot_ns - self.boot_ns).abs() > TOLERANCE {
            *self = read;
        }
    }

    pub(crate) fn unix(self, boot_ns: u64) -> Nanos {
        self.boot_ns.saturating_add_unsigned(boot_ns)
    }
}
