//! Loads the probes into the kernel, or says why that cannot be.

use std::{fs, io, os::fd::AsRawFd};

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{
        Array, HashMap, MapData, MapError, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, ProgramError, ProgramFd, TracePoint},
};
use mayfly_history::chain;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    cgroups::{Hierarchy, hierarchy_mounts},
    config::EbpfConfig,
    object,
    records::kind,
};

/// Each program with its tracepoint. The first of a tracepoint that the kernel takes is attached: kernels differ in what
/// they pass.
const PROGRAMS: [(&str, &str); 10] = [
    ("on_cgroup_mkdir", "cgroup_mkdir"),
    ("on_cgroup_rmdir", "cgroup_rmdir"),
    ("on_cgroup_attach", "cgroup_attach_task"),
    ("on_fork", "sched_process_fork"),
    ("on_exec", "sched_process_exec"),
    ("on_exit", "sched_process_exit"),
    ("on_exit_of_last", "sched_process_exit"),
    ("on_socket_state", "inet_sock_set_state"),
    ("on_mark_victim", "mark_victim"),
    ("on_mark_victim_pid", "mark_victim"),
];

/// Programs at a system call's tracepoints. The end of a call comes first, so that no beginning waits for it in vain.
const CALLS: [(&str, &str); 8] = [
    ("on_mount_done", "sys_exit_mount"),
    ("on_mount", "sys_enter_mount"),
    ("on_umount_done", "sys_exit_umount"),
    ("on_umount", "sys_enter_umount"),
    ("on_move_mount_done", "sys_exit_move_mount"),
    ("on_move_mount", "sys_enter_move_mount"),
    ("on_fsmount_done", "sys_exit_fsmount"),
    ("on_fsmount", "sys_enter_fsmount"),
];

/// Programs at the root of the unified hierarchy, which hear of datagram sockets that get a peer: those have no states.
const CONNECTS: [(&str, &str); 2] = [("on_connect4", "cgroup/connect4"), ("on_connect6", "cgroup/connect6")];

/// Why the kernel cannot be listened to. Display says what was attempted; [`LoadError::remedy`] what would help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read the kernel's type information (BTF)")]
    NoBtf(#[source] aya::BtfError),
    #[error("may not load BPF programs")]
    NotPermitted(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the kernel is locked down and refuses BPF programs that read its memory")]
    LockedDown(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot create the BPF map {name}")]
    Map {
        name: &'static str,
        #[source]
        reason: MapError,
    },
    #[error("cannot load the probes")]
    Object(#[source] Box<aya::EbpfError>),
    #[error("cannot attach to the tracepoint {tracepoint}")]
    Program {
        tracepoint: &'static str,
        #[source]
        reason: Box<ProgramError>,
    },
}

impl LoadError {
    /// What an operator can do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoBtf(_) => "run a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount sysfs, or set [ebpf] btf to a file with its BTF",
            Self::NotPermitted(_) => "run as root, or with CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH",
            Self::LockedDown(_) => "boot with lockdown=integrity or without lockdown",
            Self::Map { .. } | Self::Object(_) | Self::Program { .. } => "run a kernel of 5.12 or newer with BPF tracing and ring buffers",
        }
    }
}

/// The probes at work. Dropping it detaches them.
pub struct Probes {
    /// Keeps the programs attached.
    ebpf: Ebpf,
    pub(crate) ring: RingBuf<MapData>,
    wake_at: Array<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    admissions: HashMap<MapData, [u64; 2], [u64; 4]>,
    refused: Vec<(&'static str, String)>,
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

/// Loads and attaches the probes. `legacy_hierarchy` is the number of the v1 hierarchy of `pids`, or 0; `mounts`: those of
/// calls that mount too.
///
/// # Errors
/// The kernel has no BTF, no ring buffers, or refuses; see [`LoadError::remedy`].
pub fn load(config: &EbpfConfig, legacy_hierarchy: u32, mounts: bool) -> Result<Probes, LoadError> {
    // Without BTF the loader would leave every offset as it is in our own small structures, and read garbage.
    let btf = match &config.btf {
        Some(path) => Btf::parse_file(path, Endianness::default()),
        None => Btf::from_sys_fs(),
    };
    let btf = btf.map_err(LoadError::NoBtf)?;
    // Before 5.11 maps count as locked memory. Where it may not be raised, creating a map says so.
    let unlimited = Rlimit { current: None, maximum: None };
    let _ = setrlimit(Resource::Memlock, unlimited);
    let cpus = aya::util::nr_cpus().map_or(1, |n| u32::try_from(n).unwrap_or(1));
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("legacy_hierarchy", &legacy_hierarchy, true)
        .override_global("records_per_second", &config.max_events_per_second, true)
        .override_global("excludes_uids", &u32::from(!config.exclude_uids.is_empty()), true)
        .override_global("excludes_paths", &u32::from(!config.exclude_paths.is_empty()), true)
        .map_max_entries("ring", config.ring_bytes())
        .map_max_entries("exec_rooms", cpus)
        .load(object::probes())
        .map_err(|reason| forbidden(reason, |reason| LoadError::Object(Box::new(reason))))?;
    exclude(&mut ebpf, config)?;
    let mut refused = attach(&mut ebpf, &btf)?;
    refused.extend(attach_to_connects(&mut ebpf));
    if mounts {
        refused.extend(attach_to_calls(&mut ebpf));
    }
    Ok(Probes {
        ring: RingBuf::try_from(take(&mut ebpf, "ring")?).map_err(|reason| LoadError::Map { name: "ring", reason })?,
        wake_at: Array::try_from(take(&mut ebpf, "wake_at")?).map_err(|reason| LoadError::Map { name: "wake_at", reason })?,
        lost: PerCpuArray::try_from(take(&mut ebpf, "lost")?).map_err(|reason| LoadError::Map { name: "lost", reason })?,
        admissions: HashMap::try_from(take(&mut ebpf, "admissions")?).map_err(|reason| LoadError::Map { name: "admissions", reason })?,
        ebpf,
        refused,
    })
}

/// Bytes of a path that can be excluded, and of its key: `EXCLUDED_PATH` of `bpf/exclude.h`.
pub(crate) const EXCLUDED_PATH: usize = 252;

/// Tells the kernel what is left out.
fn exclude(ebpf: &mut Ebpf, config: &EbpfConfig) -> Result<(), LoadError> {
    let failed = |name| move |reason| LoadError::Map { name, reason };
    let map = ebpf.map_mut("excluded_uids").ok_or_else(|| missing("excluded_uids"))?;
    let mut uids: HashMap<_, u32, u8> = HashMap::try_from(map).map_err(failed("excluded_uids"))?;
    for uid in &config.exclude_uids {
        uids.insert(uid, 1, 0).map_err(failed("excluded_uids"))?;
    }
    let map = ebpf.map_mut("excluded_paths").ok_or_else(|| missing("excluded_paths"))?;
    let mut paths: LpmTrie<_, [u8; EXCLUDED_PATH], u8> = LpmTrie::try_from(map).map_err(failed("excluded_paths"))?;
    for pattern in &config.exclude_paths {
        let (path, end) = pattern.strip_suffix('*').map_or((pattern.as_str(), 1), |start| (start, 0));
        let mut bytes = [0; EXCLUDED_PATH];
        let Some(start) = bytes.get_mut(..path.len()).filter(|_| path.len() < EXCLUDED_PATH) else {
            tracing::warn!(pattern, longest = EXCLUDED_PATH - 1, "too long a path in [ebpf] exclude_paths: it is not left out");
            continue;
        };
        start.copy_from_slice(path.as_bytes());
        let bits = u32::try_from(8 * (path.len() + end)).unwrap_or(0);
        paths.insert(&Key::new(bits, bytes), 1, 0).map_err(failed("excluded_paths"))?;
    }
    Ok(())
}

/// Attaches what the kernel takes; an error if executions are not among it.
fn attach(ebpf: &mut Ebpf, btf: &Btf) -> Result<Vec<(&'static str, String)>, LoadError> {
    let mut refused: Vec<(&'static str, ProgramError)> = Vec::new();
    let mut attached: Vec<&'static str> = Vec::new();
    for (name, tracepoint) in PROGRAMS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if attached.contains(&tracepoint) {
            continue;
        }
        match attach_one(program, tracepoint, btf) {
            Ok(()) => attached.push(tracepoint),
            Err(reason) => refused.push((tracepoint, reason)),
        }
    }
    refused.retain(|(tracepoint, _)| !attached.contains(tracepoint));
    // Without this one the rest is of little worth, and the process connector of more.
    if let Some(essential) = refused.iter().position(|(tracepoint, _)| *tracepoint == "sched_process_exec") {
        let (tracepoint, reason) = refused.swap_remove(essential);
        return Err(forbidden(reason, |reason| LoadError::Program { tracepoint, reason: Box::new(reason) }));
    }
    Ok(refused.into_iter().map(|(tracepoint, reason)| (tracepoint, reason.to_string())).collect())
}

/// Attaches to the connects of all cgroups; what cannot be, with the reason.
fn attach_to_connects(ebpf: &mut Ebpf) -> Vec<(&'static str, String)> {
    let Some((_, root)) = hierarchy_mounts().into_iter().find(|(hierarchy, _)| *hierarchy == Hierarchy::Unified) else {
        return CONNECTS.map(|(_, hook)| (hook, "no unified hierarchy of cgroups is mounted".to_owned())).into();
    };
    let attach = |program: &mut aya::programs::Program| -> Result<(), Box<dyn std::error::Error>> {
        let program: &mut CgroupSockAddr = program.try_into()?;
        program.load()?;
        // A link never drives out others, and takes no flags.
        program.attach(fs::File::open(&root)?, CgroupAttachMode::Single)?;
        Ok(())
    };
    let mut refused = Vec::new();
    for (name, hook) in CONNECTS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if let Err(reason) = attach(program) {
            refused.push((hook, chain(&*reason)));
        }
    }
    refused
}

/// Attaches to system calls; what cannot be, with the reason.
fn attach_to_calls(ebpf: &mut Ebpf) -> Vec<(&'static str, String)> {
    let attach = |program: &mut aya::programs::Program, tracepoint: &str| -> Result<(), ProgramError> {
        let program: &mut TracePoint = program.try_into()?;
        program.load()?;
        program.attach("syscalls", tracepoint)?;
        Ok(())
    };
    let mut refused = Vec::new();
    for (name, tracepoint) in CALLS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if let Err(reason) = attach(program, tracepoint) {
            refused.push((tracepoint, chain(&reason)));
        }
    }
    refused
}

fn attach_one(program: &mut aya::programs::Program, tracepoint: &str, btf: &Btf) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| missing(name))
}

fn missing(name: &'static str) -> LoadError {
    LoadError::Map { name, reason: MapError::InvalidName { name: name.into() } }
}

/// Tells a refusal for lack of rights from every other.
fn forbidden<E: std::error::Error + Send + Sync + 'static>(reason: E, otherwise: impl FnOnce(E) -> LoadError) -> LoadError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&reason);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
            return if locked_down() { LoadError::LockedDown(Box::new(reason)) } else { LoadError::NotPermitted(Box::new(reason)) };
        }
        cause = error.source();
    }
    otherwise(reason)
}

fn locked_down() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|modes| modes.contains("[confidentiality]"))
}

impl Probes {
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

/// How often the kernel left a program out, from the program's descriptor: aya does not tell.
fn missed(program: &ProgramFd) -> u64 {
    use std::os::fd::AsFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).unwrap_or_default();
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}
