//! From records to events: gives each its container, its program and its time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    container::ContainerKey,
    mount::{MountAction, MountCall},
    oom::OomEvent,
    process::{KernelStream, ProcessAction, ProcessEvent},
    socket::{SocketAction, SocketEvent},
};

use crate::{
    cgroups::{CgroupMap, Hierarchy, Owner},
    clock::Clock,
    images::ExcludedImages,
    lives::Lives,
    patience::Patience,
    proc::{self, Proc, Process},
    programs::Programs,
    records::{self, Cgroups, Exec, Exit, Header, Location, Names, OomKill, Record, STATUS_UNKNOWN, SocketChange, UNSET},
};

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Process(ProcessEvent),
    Socket(SocketEvent),
    Oom(OomEvent),
    Mount(MountCall),
    /// Only something to be remembered.
    Nothing,
    /// Nobody wants to hear of it: the kernel need not tell more of these cgroups.
    Unwanted(Cgroups),
    /// These cgroups are gone.
    Gone(Vec<Cgroups>),
    /// Its fields contradict each other.
    Nonsense(&'static str),
}

/// What must be remembered to understand a record.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) cgroups: CgroupMap,
    pub(crate) lives: Lives,
    pub(crate) programs: Programs,
    pub(crate) clock: Clock,
    pub(crate) host_processes: bool,
    pub(crate) excluded_images: ExcludedImages,
    pub(crate) page_size: u64,
    /// Asked what plain probes do not tell; `None`: the probes tell all.
    pub(crate) asks: Option<Proc>,
    pub(crate) patience: Patience,
}

/// Where something happened.
struct Place {
    container: ContainerKey,
    cgroup_id: Option<i64>,
}

impl Interpreter {
    pub(crate) fn hear(&mut self, record: &Record<'_>) -> Heard {
        match record {
            Record::Exec { exec, cwd, file, path, args } => self.exec(exec, *cwd, *file, path, args),
            Record::Exit(exit) => self.exit(exit),
            // The first process of a container: its cgroup and namespaces are known before anything runs in it.
            Record::Fork(fork) => {
                self.cgroups.owner(fork.header.cgroups, fork.header.pid);
                Heard::Nothing
            }
            Record::CgroupMade { change, path } => {
                let (hierarchy, path) = (hierarchy(change.hierarchy), String::from_utf8_lossy(path));
                if let Some(named) = self.cgroups.made(hierarchy, change.id, &path) {
                    self.lives.made(hierarchy, change.id, &path, &named, self.clock.unix(change.header.boot_ns));
                }
                Heard::Nothing
            }
            Record::CgroupJoined { change, path } => {
                self.cgroups.joined(hierarchy(change.hierarchy), change.id, &String::from_utf8_lossy(path));
                Heard::Nothing
            }
            Record::CgroupGone { change, .. } => {
                let hierarchy = hierarchy(change.hierarchy);
                self.lives.removed(hierarchy, change.id, self.clock.unix(change.header.boot_ns));
                Heard::Gone(self.cgroups.removed(hierarchy, change.id))
            }
            Record::Socket(change) => self.socket(change),
            Record::OomKill(kill) => self.oom(kill),
            Record::Mount { call, source, target, fs_type } => self.mount(call, *source, *target, fs_type),
        }
    }

    /// A row that says how much a cgroup's noise was cut.
    pub(crate) fn throttled(&mut self, cgroups: Cgroups, shed: u64, time_ns: Nanos) -> ProcessEvent {
        let place = self.place(cgroups, 0);
        ProcessEvent::shed(time_ns, KernelStream::Ebpf, place.container, place.cgroup_id, int(shed))
    }

    fn place(&mut self, cgroups: Cgroups, pid: u32) -> Place {
        match self.cgroups.owner(cgroups, pid) {
            Some((Owner::Container(key), id)) => Place { container: key.clone(), cgroup_id: Some(int(id)) },
            Some((Owner::Host, id)) => Place { container: ContainerKey::default(), cgroup_id: Some(int(id)) },
            None => Place { container: ContainerKey::default(), cgroup_id: Some(int(cgroups.unified)) },
        }
    }

    /// The place of something that is wanted.
    fn wanted(&mut self, header: &Header) -> Option<Place> {
        let place = self.place(header.cgroups, header.pid);
        let is_wanted = (self.host_processes || !place.container.container_id.is_empty()) && !self.excluded_images.has(&place.container);
        is_wanted.then_some(place)
    }

    /// What is to be done about the rest.
    fn unwanted(&self, header: &Header) -> Heard {
        if self.cgroups.knows(header.cgroups) { Heard::Unwanted(header.cgroups) } else { Heard::Nothing }
    }

    fn exec(&mut self, exec: &Exec, cwd: Names<'_>, file: Names<'_>, path: &[u8], args: &[u8]) -> Heard {
        let Some(place) = self.wanted(&exec.header) else { return self.unwanted(&exec.header) };
        let path = String::from_utf8_lossy(path);
        let event = match &self.asks {
            Some(proc) => completed(self.process(&exec.header, ProcessAction::Exec, place, Arc::default()), &path, proc),
            None => {
                let cwd = cwd.path();
                let program = program(&cwd, file, &path).into();
                let cmdline = command_line(args, exec.args_whole > u64::from(exec.args_size));
                ProcessEvent { cmdline, cwd, ..self.process(&exec.header, ProcessAction::Exec, place, program) }
            }
        };
        self.programs.executed(exec.header.pid, Arc::clone(&event.path));
        // Whatever leads through /proc or a descriptor is a runtime's own program; plain probes do not tell its mounts.
        let is_containers = if self.asks.is_some() { !is_indirect(&path) } else { !self.lives.is_hosts(exec.header.mnt_ns) };
        if is_containers {
            self.lives.executed(&event, exec.header.net_ns, exec.header.mnt_ns);
        }
        Heard::Process(event)
    }

    fn exit(&mut self, exit: &Exit) -> Heard {
        // Plain probes of older kernels take the end of the first thread for that of the process.
        if self.asks.is_some() && proc::goes_on(exit.header.pid, exit.header.boot_ns, &mut self.patience) {
            return Heard::Nothing;
        }
        let path = self.programs.exited(exit.header.pid, exit.header.parent, comm(&exit.comm));
        let Some(place) = self.wanted(&exit.header) else { return self.unwanted(&exit.header) };
        let mut event = self.process(&exit.header, ProcessAction::Exit, place, path);
        (event.exit_code, event.signal) = outcome(exit.status);
        self.lives.exited(&event);
        let started_ns = Some(exit.started_boot_ns).filter(|&ns| ns != 0);
        event.duration_ms = started_ns.and_then(|ns| exit.header.boot_ns.checked_sub(ns)).map(|ns| int(ns / 1_000_000));
        Heard::Process(event)
    }

    fn process(&self, header: &Header, action: ProcessAction, place: Place, path: Arc<str>) -> ProcessEvent {
        ProcessEvent {
            time_ns: self.clock.unix(header.boot_ns),
            action,
            source: KernelStream::Ebpf,
            pid: Some(header.pid.into()),
            ns_pid: known(header.ns_pid),
            parent: known(header.parent),
            uid: id(header.uid),
            gid: id(header.gid),
            euid: id(header.euid),
            auid: id(header.auid),
            path,
            cmdline: String::new(),
            cwd: String::new(),
            exit_code: None,
            signal: None,
            duration_ms: None,
            cgroup_id: place.cgroup_id,
            pid_namespace: Some(header.pid_ns).filter(|&inode| inode != 0),
            container: place.container,
            shed: None,
        }
    }

    fn socket(&mut self, change: &SocketChange) -> Heard {
        let action = match change.action {
            1 => SocketAction::Connect,
            2 => SocketAction::Accept,
            3 => SocketAction::Listen,
            4 => SocketAction::Close,
            _ => return Heard::Nonsense("a socket record has an unknown action"),
        };
        let (Some(local_address), Some(remote_address)) = (address(change.family, change.local), address(change.family, change.remote))
        else {
            return Heard::Nonsense("a socket record has an unknown address family");
        };
        let header = &change.header;
        let Some(place) = self.wanted(header) else { return self.unwanted(header) };
        let known = header.pid != 0;
        // A dual-stack socket that has no peer yet is an IPv6 one.
        let family = if local_address.is_ipv4() || remote_address.is_ipv4() { 2 } else { 10 };
        Heard::Socket(SocketEvent {
            time_ns: self.clock.unix(header.boot_ns),
            action,
            pid: known.then(|| header.pid.into()),
            path: self.programs.path(header.pid),
            uid: if known { id(header.uid) } else { None },
            family,
            protocol: change.protocol.into(),
            local_address,
            local_port: change.local_port,
            remote_address,
            remote_port: change.remote_port,
            established: change.failed == 0,
            cgroup_id: place.cgroup_id,
            net_namespace: Some(header.net_ns).filter(|&inode| inode != 0),
            container: place.container,
            shed: None,
        })
    }

    /// Mounts matter wherever they are made.
    fn mount(&mut self, call: &records::MountCall, source: Location<'_>, target: Location<'_>, fs_type: &[u8]) -> Heard {
        const BIND_OR_MOVE: u64 = 0x3000;
        let Some(action) = mount_action(call, call.type_size == 0) else { return Heard::Nonsense("a mount record has an unknown action") };
        let header = &call.header;
        let place = self.place(header.cgroups, header.pid);
        // Of a filesystem it is whatever the filesystem takes it for; of a bind it is a folder.
        let is_folder = match call.action {
            1 => call.flags & BIND_OR_MOVE != 0,
            3 => action == MountAction::Move,
            _ => false,
        };
        Heard::Mount(MountCall {
            time_ns: self.clock.unix(header.boot_ns),
            action,
            pid: header.pid.into(),
            path: self.programs.path(header.pid),
            uid: id(header.uid),
            cgroup_id: place.cgroup_id,
            mnt_namespace: Some(header.mnt_ns).filter(|&inode| inode != 0),
            source: if is_folder { source.resolved() } else { String::from_utf8_lossy(source.path).into() },
            target: if action == MountAction::Make { String::new() } else { target.resolved() },
            fs_type: String::from_utf8_lossy(fs_type).into(),
            flags: i64::from_ne_bytes(call.flags.to_ne_bytes()),
            // What fsmount returns is a descriptor.
            result: call.result.min(0),
            container: place.container,
        })
    }

    /// A kill matters wherever it happens.
    fn oom(&mut self, kill: &OomKill) -> Heard {
        // An older kernel tells only the pid: the victim may still be there to be asked.
        let last = (kill.header.cgroups == Cgroups::default()).then(|| Proc::new().process(kill.header.pid)).flatten();
        let place = match &last {
            Some(last) => Place { container: last.container.clone(), cgroup_id: last.cgroup_id },
            None => self.place(kill.header.cgroups, kill.header.pid),
        };
        let mut path = self.programs.path(kill.header.pid);
        if path.is_empty() {
            path = comm(&kill.comm).into_owned().into();
        }
        let pages = |pages: u64| int(pages.saturating_mul(self.page_size));
        Heard::Oom(OomEvent {
            time_ns: self.clock.unix(kill.header.boot_ns),
            pid: kill.header.pid.into(),
            path,
            uid: last.as_ref().map_or_else(|| id(kill.header.uid), |last| last.uid),
            cgroup_id: place.cgroup_id,
            total_vm: last.as_ref().map_or_else(|| pages(kill.total_vm_pages), |last| last.total_vm),
            rss: last.as_ref().map_or_else(|| pages(kill.rss_pages), |last| last.rss),
            container: place.container,
        })
    }
}

/// What a call of mount(2) does is in its flags.
fn mount_action(call: &records::MountCall, has_source: bool) -> Option<MountAction> {
    const REMOUNT: u64 = 0x20;
    const MOVE: u64 = 0x2000;
    const PROPAGATION: u64 = 0x1e_0000;
    Some(match call.action {
        1 if call.flags & REMOUNT != 0 => MountAction::Remount,
        1 if call.flags & PROPAGATION != 0 => MountAction::Propagation,
        1 if call.flags & MOVE != 0 => MountAction::Move,
        1 => MountAction::Mount,
        2 => MountAction::Unmount,
        // A path is left; a descriptor, of which the device and type are told, was nowhere yet.
        3 if has_source => MountAction::Move,
        3 => MountAction::Mount,
        4 => MountAction::Make,
        _ => return None,
    })
}

/// The path of what was executed: of its file where the path that was asked for leads elsewhere, from the root where it
/// was asked for from the working folder.
fn program(cwd: &str, file: Names<'_>, path: &str) -> String {
    if !file.0.is_empty() {
        return file.path();
    }
    if path.starts_with('/') || path.is_empty() {
        return path.into();
    }
    let relative = path.trim_start_matches("./");
    format!("{}/{relative}", cwd.trim_end_matches('/'))
}

/// Whether a path leads to whatever file the process has there.
fn is_indirect(path: &str) -> bool {
    path.starts_with("/proc/") || path.starts_with("/dev/fd/")
}

/// What was executed, with what /proc still knows of it.
fn completed(mut event: ProcessEvent, path: &str, proc: &Proc) -> ProcessEvent {
    let name = path.rsplit('/').next().unwrap_or_default();
    let named = |process: &Process| process.name.as_bytes() == name.as_bytes().get(..15).unwrap_or(name.as_bytes());
    let process = event.pid.and_then(|pid| proc.process(u32::try_from(pid).ok()?));
    if let Some(process) = &process {
        (event.parent, event.ns_pid, event.pid_namespace) = (process.parent, process.ns_pid, process.pid_namespace);
        (event.euid, event.auid) = (process.euid, process.auid);
    }
    // By then it may have executed another program.
    let Some(process) = process.filter(|process| named(process)) else {
        // In which folder a relative path began is not known, and nothing stands for it.
        event.path =
            if path.starts_with('/') || path.is_empty() { path.into() } else { format!("…/{}", path.trim_start_matches("./")).into() };
        return event;
    };
    event.path = if is_indirect(path) { process.path } else { program(&process.cwd, Names::default(), path).into() };
    (event.cmdline, event.cwd) = (process.cmdline, process.cwd);
    event
}

/// The kernel tells no others than these two.
const fn hierarchy(number: u32) -> Hierarchy {
    if number == 0 { Hierarchy::Unified } else { Hierarchy::Legacy }
}

/// Exit code or signal. As wait(2) packs them: a signal in the low seven bits, or an exit code in the next byte.
pub(crate) fn outcome(status: u32) -> (Option<i64>, Option<i64>) {
    if status == STATUS_UNKNOWN {
        return (None, None);
    }
    match status & 0x7f {
        0 => (Some(((status >> 8) & 0xff).into()), None),
        signal => (None, Some(signal.into())),
    }
}

/// The arguments, which end with NUL each, as one line; `…` where the kernel's copy was cut.
fn command_line(args: &[u8], cut: bool) -> String {
    let mut line = String::from_utf8_lossy(args).replace('\0', " ");
    if cut {
        line.push('…');
    }
    line
}

fn comm(name: &[u8; 16]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default())
}

/// An address of family `AF_INET` (2) or `AF_INET6` (10); a v4-mapped one as IPv4.
fn address(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        2 => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        10 => Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
        _ => None,
    }
}

fn known(pid: u32) -> Option<i64> {
    (pid != 0).then(|| pid.into())
}

fn id(value: u32) -> Option<i64> {
    (value != UNSET).then(|| value.into())
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
