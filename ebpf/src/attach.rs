//! Attaches programs to what they listen to.

use std::{error::Error, fs};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, Program, ProgramError, TracePoint},
};
use mayfly_history::chain;

use crate::cgroups::{Hierarchy, hierarchy_mounts};

/// Hooks that this kernel does not offer as the probes need them, each with the reason.
pub(crate) type Refused = Vec<(&'static str, String)>;

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

/// Without this one the rest is of little worth, and the process connector of more.
pub(crate) const ESSENTIAL: &str = "sched_process_exec";

/// Attaches what the kernel takes.
///
/// # Errors
/// Executions are not among it.
pub(crate) fn to_typed_tracepoints(ebpf: &mut Ebpf, btf: &Btf) -> Result<Refused, ProgramError> {
    let mut refused: Vec<(&'static str, ProgramError)> = Vec::new();
    let mut attached: Vec<&'static str> = Vec::new();
    for (name, tracepoint) in PROGRAMS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if attached.contains(&tracepoint) {
            continue;
        }
        match to_typed_tracepoint(program, tracepoint, btf) {
            Ok(()) => attached.push(tracepoint),
            Err(reason) => refused.push((tracepoint, reason)),
        }
    }
    refused.retain(|(tracepoint, _)| !attached.contains(tracepoint));
    if let Some(essential) = refused.iter().position(|(tracepoint, _)| *tracepoint == ESSENTIAL) {
        return Err(refused.swap_remove(essential).1);
    }
    Ok(refused.into_iter().map(|(tracepoint, reason)| (tracepoint, chain(&reason))).collect())
}

fn to_typed_tracepoint(program: &mut Program, tracepoint: &str, btf: &Btf) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

/// Attaches to a tracepoint of the kind that tracefs shows.
pub(crate) fn to_tracepoint(program: &mut Program, category: &str, name: &str) -> Result<(), ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    program.attach(category, name)?;
    Ok(())
}

/// Attaches to the connects of all cgroups; what cannot be, with the reason.
pub(crate) fn to_connects(ebpf: &mut Ebpf) -> Refused {
    let Some((_, root)) = hierarchy_mounts().into_iter().find(|(hierarchy, _)| *hierarchy == Hierarchy::Unified) else {
        return CONNECTS.map(|(_, hook)| (hook, "no unified hierarchy of cgroups is mounted".to_owned())).into();
    };
    let attach = |program: &mut Program| -> Result<(), Box<dyn Error>> {
        let program: &mut CgroupSockAddr = program.try_into()?;
        program.load()?;
        // A link never drives out others, and takes no flags.
        program.attach(fs::File::open(&root)?, CgroupAttachMode::Single)?;
        Ok(())
    };
    let mut refused = Refused::new();
    for (name, hook) in CONNECTS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if let Err(reason) = attach(program) {
            refused.push((hook, chain(&*reason)));
        }
    }
    refused
}

/// Attaches to system calls; what cannot be, with the reason.
pub(crate) fn to_calls(ebpf: &mut Ebpf) -> Refused {
    let mut refused = Refused::new();
    for (name, tracepoint) in CALLS {
        let Some(program) = ebpf.program_mut(name) else { continue };
        if let Err(reason) = to_tracepoint(program, "syscalls", tracepoint) {
            refused.push((tracepoint, chain(&reason)));
        }
    }
    refused
}
