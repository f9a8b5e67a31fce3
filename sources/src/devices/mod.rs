//! Devices: what the kernel shows of them and of the hardware behind.

mod superblock;
mod sysfs;

pub(crate) use sysfs::{Bottom, Sysfs, read};

/// What fuzzers call.
pub mod fuzzing {
    /// The first bytes of a hostile device.
    pub fn superblock(bytes: &[u8]) {
        let _ = super::superblock::name(bytes);
    }
}
