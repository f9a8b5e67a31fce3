//! Loads the probes that know no types, for a kernel without BTF: at tracepoints whose fields tracefs tells.

use std::path::Path;

use aya::{
    BtfError, Ebpf, EbpfLoader,
    maps::{HashMap, MapError},
    programs::ProgramError,
};
use mayfly_history::chain;

use crate::{
    attach::{self, ESSENTIAL, Refused},
    config::EbpfConfig,
    error::{LoadError, diagnose},
    load::{Globals, exclude},
    object,
    probes::Probes,
    proc::Proc,
    tracefs::Format,
};

/// A program, the tracepoint that it listens to, and the fields that it reads there. Where each is, it has from a variable of
/// its own: `exec_filename`.
struct Listener {
    program: &'static str,
    category: &'static str,
    tracepoint: &'static str,
    prefix: &'static str,
    fields: &'static [&'static str],
    /// Those that older kernels do not have.
    newer: &'static [&'static str],
}

const LISTENERS: [Listener; 8] = [
    listener("on_cgroup_mkdir", "cgroup", "cgroup_mkdir", "mkdir", &["root", "id", "path"]),
    listener("on_cgroup_rmdir", "cgroup", "cgroup_rmdir", "rmdir", &["root", "id", "path"]),
    listener("on_cgroup_attach", "cgroup", "cgroup_attach_task", "attach", &["dst_root", "dst_id", "dst_path", "pid"]),
    listener("on_fork", "sched", "sched_process_fork", "fork", &["child_pid"]),
    listener("on_exec", "sched", ESSENTIAL, "exec", &["filename"]),
    Listener { newer: &["group_dead"], ..listener("on_exit", "sched", "sched_process_exit", "exit", &[]) },
    listener(
        "on_socket_state",
        "sock",
        "inet_sock_set_state",
        "state",
        &["skaddr", "oldstate", "newstate", "sport", "dport", "family", "protocol", "saddr", "daddr", "saddr_v6", "daddr_v6"],
    ),
    listener("on_mark_victim", "oom", "mark_victim", "victim", &["pid"]),
];

const fn listener(
    program: &'static str,
    category: &'static str,
    tracepoint: &'static str,
    prefix: &'static str,
    fields: &'static [&'static str],
) -> Listener {
    Listener { program, category, tracepoint, prefix, fields, newer: &[] }
}

/// Where each field of the tracepoints is, and the tracepoints that lack one.
fn read_formats(sysfs: &Path) -> Result<(Vec<(String, u32)>, Refused), LoadError> {
    let (mut offsets, mut refused) = (Vec::new(), Refused::new());
    for Listener { category, tracepoint, prefix, fields, newer, .. } in &LISTENERS {
        let format = match Format::read(sysfs, category, tracepoint) {
            Ok(format) => format,
            Err(reason) if *tracepoint == ESSENTIAL => return Err(LoadError::Format { tracepoint, reason }),
            Err(reason) => {
                refused.push((*tracepoint, reason.to_string()));
                continue;
            }
        };
        if let Some(missing) = fields.iter().find(|field| format.offset(field).is_none()) {
            refused.push((*tracepoint, format!("it has no field `{missing}`")));
            continue;
        }
        let found = fields.iter().chain(*newer).filter_map(|field| Some((format!("{prefix}_{field}"), format.offset(field)?)));
        offsets.extend(found);
    }
    Ok((offsets, refused))
}

/// Loads and attaches them. `no_btf`: why the others could not be.
pub(crate) fn load(config: &EbpfConfig, legacy_hierarchy: u32, no_btf: BtfError) -> Result<Probes, LoadError> {
    let because = chain(&no_btf);
    let loaded = load_without_types(config, legacy_hierarchy).and_then(|(ebpf, refused)| Probes::new(ebpf, refused, Some(because)));
    // Rights would be needed in any case.
    loaded.map_err(|without| if without.is_refusal() { without } else { LoadError::NoBtf { reason: no_btf, without: Box::new(without) } })
}

fn load_without_types(config: &EbpfConfig, legacy_hierarchy: u32) -> Result<(Ebpf, Refused), LoadError> {
    let (offsets, mut refused) = read_formats(&config.sysfs)?;
    let globals = Globals::new(config, legacy_hierarchy);
    let mut loader = EbpfLoader::new();
    globals.set(&mut loader, config);
    for (variable, offset) in &offsets {
        loader.override_global(variable, offset, true);
    }
    let loaded = loader.btf(None).load(object::plain());
    let mut ebpf = loaded.map_err(|reason| diagnose(reason, &config.sysfs, |reason| LoadError::Object(Box::new(reason))))?;
    exclude(&mut ebpf, config)?;
    for &Listener { program, category, tracepoint, .. } in &LISTENERS {
        if refused.iter().any(|(known, _)| *known == tracepoint) {
            continue;
        }
        let Some(program) = ebpf.program_mut(program) else { continue };
        match attach::to_tracepoint(program, category, tracepoint) {
            Ok(()) => {}
            Err(reason) if tracepoint == ESSENTIAL => return Err(no_program(reason, tracepoint, &config.sysfs)),
            Err(reason) => refused.push((tracepoint, chain(&reason))),
        }
    }
    refused.extend(attach::to_connects(&mut ebpf));
    // After the attaching: what is born or moved meanwhile is noted by the kernel, and stays.
    if legacy_hierarchy != 0 {
        note_existing(&mut ebpf)?;
    }
    Ok((ebpf, refused))
}

fn no_program(reason: ProgramError, tracepoint: &'static str, sysfs: &Path) -> LoadError {
    diagnose(reason, sysfs, |reason| LoadError::Program { tracepoint, reason: Box::new(reason) })
}

/// Tells the kernel's notes in which cgroup of the v1 hierarchy each process is.
fn note_existing(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    const ONLY_IF_ABSENT: u64 = 1;
    let failed = |reason| LoadError::Map { name: "task_notes", reason };
    let map = ebpf.map_mut("task_notes").ok_or_else(|| failed(MapError::InvalidName { name: "task_notes".into() }))?;
    let mut notes: HashMap<_, u32, [u64; 2]> = HashMap::try_from(map).map_err(failed)?;
    for (pid, cgroup) in Proc::new().legacy_cgroups() {
        // It is there already if it was moved meanwhile.
        let _ = notes.insert(pid, [cgroup, 0], ONLY_IF_ABSENT);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tracefs of these formats.
    fn tracefs(formats: &[(&str, &str)]) -> std::path::PathBuf {
        let sysfs = std::env::temp_dir().join(format!("mayfly-tracefs-{}-{}", std::process::id(), formats.len()));
        for (tracepoint, format) in formats {
            let folder = sysfs.join("kernel/debug/tracing/events").join(tracepoint);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("format"), format).unwrap();
        }
        sysfs
    }

    #[test]
    fn leaves_out_a_tracepoint_that_lacks_a_field_and_gives_up_without_executions() {
        let sysfs = tracefs(&[
            ("sched/sched_process_exec", "\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n"),
            ("cgroup/cgroup_mkdir", "\tfield:int root;\toffset:8;\tsize:4;\tsigned:1;\n"),
            ("sched/sched_process_exit", "\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;\n"),
        ]);
        let (offsets, refused) = read_formats(&sysfs).unwrap();
        fs::remove_dir_all(sysfs).unwrap();
        assert_eq!(offsets, [("exec_filename".to_owned(), 8)]);
        assert_eq!(refused.len(), LISTENERS.len() - 2);
        assert_eq!(refused[0], ("cgroup_mkdir", "it has no field `id`".to_owned()));
        let error = read_formats(Path::new("/nonexistent")).unwrap_err();
        assert!(
            matches!(error, LoadError::Format { tracepoint: ESSENTIAL, .. }) && error.remedy().starts_with("mount tracefs"),
            "{error:?}"
        );
    }
}
