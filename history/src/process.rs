//! What processes did, as the kernel tells it.

use std::sync::Arc;

use crate::{
    bound::replace,
    container::ContainerKey,
    record::Record,
    redact::Redaction,
    sink::{Pushed, hash},
    time::Nanos,
};

/// `container_process_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessAction {
    /// A program took over the process.
    Exec,
    /// The last thread of the process ended.
    Exit,
    /// A cgroup did more than it may; [`ProcessEvent::shed`] says how much was left out.
    Throttled,
}

impl ProcessAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Throttled => "throttled",
        }
    }
}

/// Which of the kernel's streams told it: `container_process_events.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelStream {
    Ebpf,
    /// The process connector: no cgroup, no arguments but those still in /proc.
    Connector,
}

impl KernelStream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Connector => "connector",
        }
    }
}

/// One event of a process: the record of `container_process_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    pub time_ns: Nanos,
    pub action: ProcessAction,
    pub source: KernelStream,
    pub pid: Option<i64>,
    /// The pid in the process's own pid namespace.
    pub ns_pid: Option<i64>,
    pub parent: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub euid: Option<i64>,
    /// The user who logged in; `None` where nobody did.
    pub auid: Option<i64>,
    /// What was executed, as it was asked for; of an exit: by the process before.
    pub path: Arc<str>,
    /// Arguments joined by spaces; cut ones end with `…`. Empty but for an exec.
    pub cmdline: String,
    pub cwd: String,
    /// Of an exit by itself.
    pub exit_code: Option<i64>,
    /// Of an exit by a signal.
    pub signal: Option<i64>,
    /// Of an exit: since the process was born.
    pub duration_ms: Option<i64>,
    pub cgroup_id: Option<i64>,
    pub pid_namespace: Option<u32>,
    /// As far as the cgroup tells: id and namespace, no endpoint. Empty id: the host.
    pub container: ContainerKey,
    /// Of `throttled`: how many events were left out.
    pub shed: Option<i64>,
}

impl Pushed for ProcessEvent {
    const RING: usize = 16_384;

    fn share(&self) -> u64 {
        hash(&(&self.container, self.cgroup_id))
    }
}

impl Record for ProcessEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }

    fn clean(&mut self, redaction: &Redaction, _now_ns: Nanos) {
        replace(&mut self.cmdline, |line| redaction.text(line));
    }

    /// A container's ids are its own users', but who logged in did so on the host.
    fn users(&self) -> [Option<i64>; 3] {
        if self.container.container_id.is_empty() { [self.uid, self.euid, self.auid] } else { [self.auid, None, None] }
    }

    fn group(&self) -> Option<i64> {
        self.gid.filter(|_| self.container.container_id.is_empty())
    }

    fn throttled(self, events: u64, now_ns: Nanos) -> Option<Self> {
        // What the kernel left out before counts too.
        let before = if self.action == ProcessAction::Throttled { self.shed.unwrap_or(0).saturating_sub(1) } else { 0 };
        let shed = i64::try_from(events).unwrap_or(i64::MAX).saturating_add(before);
        Some(Self::shed(now_ns, self.source, self.container, self.cgroup_id, shed))
    }
}

impl ProcessEvent {
    /// A row that says that a cgroup did more than it may, and how much of it was left out.
    pub fn shed(time_ns: Nanos, source: KernelStream, container: ContainerKey, cgroup_id: Option<i64>, shed: i64) -> Self {
        Self {
            time_ns,
            action: ProcessAction::Throttled,
            source,
            pid: None,
            ns_pid: None,
            parent: None,
            uid: None,
            gid: None,
            euid: None,
            auid: None,
            path: Arc::default(),
            cmdline: String::new(),
            cwd: String::new(),
            exit_code: None,
            signal: None,
            duration_ms: None,
            cgroup_id,
            pid_namespace: None,
            container,
            shed: Some(shed),
        }
    }
}
