//! The probes at work: their ring, and what is counted and set in the kernel while they are.

use std::{fs, os::fd::AsRawFd};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::ProgramFd,
};

use crate::{error::LoadError, records::kind};

/// The probes at work. Dropping it detaches them.
pub struct Probes {
    /// Keeps the programs attached.
    ebpf: Ebpf,
    pub(crate) ring: RingBuf<MapData>,
    wake_at: Array<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    admissions: HashMap<MapData, [u64; 2], [u64; 4]>,
    refused: Vec<(&'static str, String)>,
    /// Why these are the plain ones, which tell less.
    plain_because: Option<String>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").field("refused", &self.refused).finish_non_exhaustive()
    }
}

/// What the kernel says of a cgroup's records: `struct admission`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) cgroups: [u64; 2],
    /// Records shed since the cgroup was first heard.
    pub(crate) shed: u64,
}

impl Probes {
    /// Takes over what was loaded and attached.
    pub(crate) fn new(mut ebpf: Ebpf, refused: Vec<(&'static str, String)>, plain_because: Option<String>) -> Result<Self, LoadError> {
        Ok(Self {
            ring: take(&mut ebpf, "ring", RingBuf::try_from)?,
            wake_at: take(&mut ebpf, "wake_at", Array::try_from)?,
            lost: take(&mut ebpf, "lost", PerCpuArray::try_from)?,
            admissions: take(&mut ebpf, "admissions", HashMap::try_from)?,
            ebpf,
            refused,
            plain_because,
        })
    }

    /// Why these are the probes that know no types: they tell less. `None`: they are not.
    pub fn plain_because(&self) -> Option<&str> {
        self.plain_because.as_deref()
    }

    /// Tracepoints that this kernel does not offer as the probes need them, each with the reason.
    pub fn refused(&self) -> &[(&'static str, String)] {
        &self.refused
    }

    /// Asks to be woken once, when so many bytes wait in the ring.
    pub(crate) fn wake_at(&mut self, bytes: u64) -> Result<(), MapError> {
        self.wake_at.set(0, bytes, 0)
    }

    /// Records lost for want of room since the probes were loaded, all kinds and CPUs, and calls that the kernel left
    /// out because a probe interrupted itself.
    pub(crate) fn lost(&self) -> u64 {
        let dropped: u64 = (0..kind::COUNT)
            .filter_map(|kind| self.lost.get(&kind, 0).ok())
            .flat_map(|cpus| cpus.iter().copied().collect::<Vec<_>>())
            .sum();
        dropped + self.ebpf.programs().filter_map(|(_, program)| program.fd().ok().map(missed)).sum::<u64>()
    }

    /// What was shed, by cgroup.
    pub(crate) fn admissions(&self) -> impl Iterator<Item = Admission> {
        self.admissions.iter().filter_map(Result::ok).map(|(cgroups, [_, _, shed, _])| Admission { cgroups, shed })
    }

    /// Nothing of these cgroups is of interest any more.
    pub(crate) fn silence(&mut self, cgroups: [u64; 2]) -> Result<(), MapError> {
        self.admissions.insert(cgroups, [0, 0, 0, 1], 0)
    }

    /// Forgets cgroups that are gone. Their ids do not come back.
    pub(crate) fn forget(&mut self, cgroups: &[u64; 2]) {
        // It may not be there: nothing happened in it.
        let _ = self.admissions.remove(cgroups);
    }
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str, of: impl FnOnce(Map) -> Result<T, MapError>) -> Result<T, LoadError> {
    ebpf.take_map(name)
        .ok_or_else(|| MapError::InvalidName { name: name.into() })
        .and_then(of)
        .map_err(|reason| LoadError::Map { name, reason })
}

/// How often the kernel left a program out, from the program's descriptor: aya does not tell.
fn missed(program: &ProgramFd) -> u64 {
    use std::os::fd::AsFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).unwrap_or_default();
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}
