//! What an operator can set about the probes.

use std::path::PathBuf;

use serde::Deserialize;

/// `[ebpf]` of `mayfly.toml`. Every key is optional; unknown keys are refused by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EbpfConfig {
    /// Whether to load probes at all. Default true.
    pub enabled: bool,
    /// Whether to record processes and sockets outside of containers too. Default false.
    pub host_processes: bool,
    /// Records that one cgroup may write in a second; what it writes beyond is counted only. 0: no limit. Default 5000.
    pub max_events_per_second: u64,
    /// Where the kernel's type information (BTF) is, for a kernel that does not have it in sysfs. Default: it has.
    pub btf: Option<PathBuf>,
    /// Users whose processes and connections are left out, by id. They are left out in the kernel.
    pub exclude_uids: Vec<u32>,
    /// Programs whose executions are left out, by their path as it was asked for, whole or up to a final `*`.
    pub exclude_paths: Vec<String>,
    /// Images whose containers' processes and connections are left out, as the runtime spells them, whole or up to a final `*`. The kernel leaves
    /// out a container from the moment on at which its image is known.
    pub exclude_images: Vec<String>,
    /// Size of the ring between the kernel and the recorder, in KiB; rounded up to a power of two. Default 2048.
    pub ring_kib: u32,
    /// Where sysfs is; for tests.
    #[serde(skip)]
    pub sysfs: PathBuf,
}

impl Default for EbpfConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            host_processes: false,
            max_events_per_second: 5000,
            btf: None,
            exclude_uids: Vec::new(),
            exclude_paths: Vec::new(),
            exclude_images: Vec::new(),
            ring_kib: 2048,
            sysfs: "/sys".into(),
        }
    }
}

impl EbpfConfig {
    /// Bytes of the ring: a power of two, from 64 KiB to 1 GiB.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_kib.clamp(64, 1 << 20).next_power_of_two() << 10
    }
}
