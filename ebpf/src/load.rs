//! Loads the probes into the kernel, or says why that cannot be.

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{
        HashMap, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    attach,
    config::EbpfConfig,
    error::{LoadError, diagnose},
    object, plain,
    probes::Probes,
};

/// Loads and attaches the probes; those that know no types where the kernel has no BTF. `legacy_hierarchy` is the number of
/// the v1 hierarchy of `pids`, or 0; `mounts`: those of calls that mount too.
///
/// # Errors
/// The kernel has neither BTF nor tracefs, no ring buffers, or refuses; see [`LoadError::remedy`].
pub fn load(config: &EbpfConfig, legacy_hierarchy: u32, mounts: bool) -> Result<Probes, LoadError> {
    // Before 5.11 maps count as locked memory. Where it may not be raised, creating a map says so.
    let unlimited = Rlimit { current: None, maximum: None };
    let _ = setrlimit(Resource::Memlock, unlimited);
    let btf = match &config.btf {
        Some(path) => Btf::parse_file(path, Endianness::default()),
        None => Btf::from_sys_fs(),
    };
    let btf = match btf {
        Ok(btf) => btf,
        // The loader would leave every offset as it is in our own small structures, and they read garbage.
        Err(reason) => return plain::load(config, legacy_hierarchy, reason),
    };
    let cpus = aya::util::nr_cpus().map_or(1, |n| u32::try_from(n).unwrap_or(1));
    let globals = Globals::new(config, legacy_hierarchy);
    let mut loader = EbpfLoader::new();
    globals.set(&mut loader, config);
    let loaded = loader.btf(Some(&btf)).map_max_entries("exec_rooms", cpus).load(object::probes());
    let mut ebpf = loaded.map_err(|reason| diagnose(reason, &config.sysfs, |reason| LoadError::Object(Box::new(reason))))?;
    exclude(&mut ebpf, config)?;
    let no_executions = |reason| LoadError::Program { tracepoint: attach::ESSENTIAL, reason: Box::new(reason) };
    let mut refused = attach::to_typed_tracepoints(&mut ebpf, &btf).map_err(|reason| diagnose(reason, &config.sysfs, no_executions))?;
    refused.extend(attach::to_connects(&mut ebpf));
    if mounts {
        refused.extend(attach::to_calls(&mut ebpf));
    }
    Probes::new(ebpf, refused, None)
}

/// What both kinds of probes are told of the configuration.
pub(crate) struct Globals {
    legacy_hierarchy: u32,
    records_per_second: u64,
    excludes_uids: u32,
    excludes_paths: u32,
}

impl Globals {
    pub(crate) fn new(config: &EbpfConfig, legacy_hierarchy: u32) -> Self {
        Self {
            legacy_hierarchy,
            records_per_second: config.max_events_per_second,
            excludes_uids: u32::from(!config.exclude_uids.is_empty()),
            excludes_paths: u32::from(!config.exclude_paths.is_empty()),
        }
    }

    pub(crate) fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>, config: &EbpfConfig) {
        loader
            .override_global("legacy_hierarchy", &self.legacy_hierarchy, true)
            .override_global("records_per_second", &self.records_per_second, true)
            .override_global("excludes_uids", &self.excludes_uids, true)
            .override_global("excludes_paths", &self.excludes_paths, true)
            .map_max_entries("ring", config.ring_bytes());
    }
}

/// Bytes of a path that can be excluded, and of its key: `EXCLUDED_PATH` of `bpf/exclude.h`.
pub(crate) const EXCLUDED_PATH: usize = 252;

/// Tells the kernel what is left out.
pub(crate) fn exclude(ebpf: &mut Ebpf, config: &EbpfConfig) -> Result<(), LoadError> {
    let failed = |name| move |reason| LoadError::Map { name, reason };
    let missing = |name: &'static str| LoadError::Map { name, reason: MapError::InvalidName { name: name.into() } };
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
