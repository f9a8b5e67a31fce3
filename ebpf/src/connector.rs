//! The kernel's process connector: what is left where no probe can be loaded.
//!
//! It tells pids; program, arguments, user and container are asked of /proc at an exec, so that a process that ends at
//! once is known by its parent's container only. Messages and their layout: the kernel's `linux/netlink.h`,
//! `linux/connector.h`, `linux/cn_proc.h`.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mayfly_history::{
    Nanos,
    container::ContainerKey,
    process::{KernelStream, ProcessAction, ProcessEvent},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recvfrom, send, socket_with, sockopt,
    },
};

use crate::{
    interpret::outcome,
    proc::{Proc, Process},
};

/// `CN_IDX_PROC`, both as the address of the connector and as its multicast group.
const PROCESSES: u32 = 1;
const LISTEN: u32 = 1;
/// `nlmsghdr`, `cn_msg`, and of `proc_event`: what, cpu and time.
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
const EVENT_HEADER: usize = 16;
/// Bytes that may wait in the socket: a burst of some ten thousand messages.
const SOCKET_BUFFER: usize = 4 << 20;
/// How long the kernel may take to say whether it lets us listen: it does so at once.
const ANSWER: Duration = Duration::from_secs(1);
/// Processes that are remembered.
const MOST: usize = 65_536;

/// What one message tells. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Whether the kernel lets us listen: 0, or an errno.
    Answer(u32),
    Fork {
        parent: u32,
        child: u32,
    },
    Exec {
        pid: u32,
    },
    Exit {
        pid: u32,
        status: u32,
    },
    /// Of a thread, or of no interest.
    Other,
}

/// A message's counter on its processor, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sequence: u32,
    pub(crate) cpu: u32,
    pub(crate) monotonic_ns: u64,
}

/// Reads one datagram. `None`: it is too short, or not of the connector for processes.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Stamp, Told)> {
    let message = bytes.get(NETLINK_HEADER..)?;
    if word(message, 0)? != PROCESSES {
        return None;
    }
    let event = message.get(CONNECTOR_HEADER..)?;
    let stamp = Stamp {
        sequence: word(message, 8)?,
        cpu: word(event, 4)?,
        monotonic_ns: u64::from(word(event, 8)?) | u64::from(word(event, 12)?) << 32,
    };
    let field = |nth: usize| word(event, EVENT_HEADER + 4 * nth);
    let told = match word(event, 0)? {
        0 => Told::Answer(field(0)?),
        1 => match (field(1)?, field(2)?, field(3)?) {
            (parent, thread, child) if thread == child => Told::Fork { parent, child },
            _ => Told::Other,
        },
        2 => Told::Exec { pid: field(1)? },
        0x8000_0000 => match (field(0)?, field(1)?, field(2)?) {
            (thread, pid, status) if thread == pid => Told::Exit { pid, status },
            _ => Told::Other,
        },
        _ => Told::Other,
    };
    Some((stamp, told))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Connector {
    socket: OwnedFd,
}

/// What reading the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Stamp, Told),
    /// Something that cannot be read.
    Garbage,
    /// Messages found no room in the socket.
    Overrun,
}

impl Connector {
    /// Asks the kernel to tell.
    ///
    /// # Errors
    /// This kernel has no connector, or does not tell us: that takes CAP_NET_ADMIN and the first pid namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
        // What is allowed otherwise is less, but enough to begin with.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER);
        bind(&socket, &SocketAddrNetlink::new(0, PROCESSES))?;
        let connector = Self { socket };
        send(&connector.socket, &listen(), SendFlags::empty())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            match connector.next()? {
                Some(Heard::Message(_, Told::Answer(0))) => return Ok(connector),
                Some(Heard::Message(_, Told::Answer(error))) => {
                    return Err(i32::try_from(error).map_or(Errno::PERM.into(), io::Error::from_raw_os_error));
                }
                Some(_) => {}
                None if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
                    poll(&mut [PollFd::new(&connector.socket, PollFlags::IN)], Some(&timeout))?;
                }
            }
        }
    }

    /// The next message that waits.
    pub(crate) fn next(&self) -> io::Result<Option<Heard>> {
        let mut bytes = [0; 1024];
        match recvfrom(&self.socket, &mut bytes, RecvFlags::empty()) {
            Ok((_, size, sender)) => {
                // Others may send to this address, too.
                let from_kernel = sender.and_then(|s| SocketAddrNetlink::try_from(s).ok()).is_some_and(|s| s.pid() == 0);
                let decoded = if from_kernel { decode(&bytes[..size.min(bytes.len())]) } else { None };
                Ok(Some(decoded.map_or(Heard::Garbage, |(stamp, told)| Heard::Message(stamp, told))))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::NOBUFS) => Ok(Some(Heard::Overrun)),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The request to be told of processes.
fn listen() -> Vec<u8> {
    const DONE: u16 = 3;
    let length = u32::try_from(NETLINK_HEADER + CONNECTOR_HEADER + 4).unwrap_or(0);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(DONE.to_ne_bytes());
    // Flags, sequence and port of netlink; then index and value, sequence and acknowledgement of the connector.
    bytes.extend([0; 10]);
    bytes.extend(PROCESSES.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(4u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes
}

/// What is known of a living process.
#[derive(Clone, Debug, Default)]
struct Known {
    path: Arc<str>,
    container: ContainerKey,
    cgroup_id: Option<i64>,
    parent: Option<i64>,
    born_ns: Option<Nanos>,
}

/// From messages to events.
#[derive(Debug)]
pub(crate) struct Processes {
    proc: Proc,
    known: HashMap<u32, Known>,
    /// The last number of each processor.
    sequences: HashMap<u32, u32>,
    host_processes: bool,
}

impl Processes {
    pub(crate) fn new(host_processes: bool) -> Self {
        Self { proc: Proc::new(), known: HashMap::new(), sequences: HashMap::new(), host_processes }
    }

    /// How many messages of the same processor are missing before this one.
    pub(crate) fn missed_before(&mut self, stamp: Stamp) -> u32 {
        match self.sequences.insert(stamp.cpu, stamp.sequence) {
            // Going back is no loss: the kernel began anew.
            Some(last) => stamp.sequence.checked_sub(last).map_or(0, |step| step.saturating_sub(1)),
            None => 0,
        }
    }

    /// `time_ns`: when it happened, UNIX time.
    pub(crate) fn hear(&mut self, told: Told, time_ns: Nanos) -> Option<ProcessEvent> {
        match told {
            Told::Fork { parent, child } => {
                let born =
                    Known { parent: Some(parent.into()), born_ns: Some(time_ns), ..self.known.get(&parent).cloned().unwrap_or_default() };
                self.remember(child, born);
                None
            }
            Told::Exec { pid } => {
                let before = self.known.get(&pid).cloned().unwrap_or_default();
                let event = match self.proc.process(pid) {
                    Some(process) => told_by_proc(pid, time_ns, process),
                    // Gone already: whose child it was is all that is left.
                    None => told_by_memory(pid, time_ns, ProcessAction::Exec, &Known { path: Arc::default(), ..before.clone() }),
                };
                let known = Known {
                    path: Arc::clone(&event.path),
                    container: event.container.clone(),
                    cgroup_id: event.cgroup_id,
                    parent: event.parent,
                    born_ns: before.born_ns,
                };
                self.remember(pid, known);
                self.wanted(event)
            }
            Told::Exit { pid, status } => {
                let known = self.known.remove(&pid).unwrap_or_default();
                let mut event = told_by_memory(pid, time_ns, ProcessAction::Exit, &known);
                (event.exit_code, event.signal) = outcome(status);
                event.duration_ms = known.born_ns.map(|born| (time_ns - born).max(0) / 1_000_000);
                self.wanted(event)
            }
            Told::Answer(_) | Told::Other => None,
        }
    }

    fn wanted(&self, event: ProcessEvent) -> Option<ProcessEvent> {
        (self.host_processes || !event.container.container_id.is_empty()).then_some(event)
    }

    fn remember(&mut self, pid: u32, known: Known) {
        if self.known.len() >= MOST {
            self.known.retain(|pid, _| std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
        if self.known.len() < MOST {
            self.known.insert(pid, known);
        }
    }
}

fn told_by_proc(pid: u32, time_ns: Nanos, process: Process) -> ProcessEvent {
    ProcessEvent {
        ns_pid: process.ns_pid,
        parent: process.parent,
        uid: process.uid,
        gid: process.gid,
        euid: process.euid,
        auid: process.auid,
        path: process.path,
        cmdline: process.cmdline,
        cwd: process.cwd,
        pid_namespace: process.pid_namespace,
        pid: Some(pid.into()),
        action: ProcessAction::Exec,
        shed: None,
        ..ProcessEvent::shed(time_ns, KernelStream::Connector, process.container, process.cgroup_id, 0)
    }
}

fn told_by_memory(pid: u32, time_ns: Nanos, action: ProcessAction, known: &Known) -> ProcessEvent {
    ProcessEvent {
        pid: Some(pid.into()),
        parent: known.parent,
        path: Arc::clone(&known.path),
        action,
        shed: None,
        ..ProcessEvent::shed(time_ns, KernelStream::Connector, known.container.clone(), known.cgroup_id, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of the connector, as the kernel lays it out.
    fn message(what: u32, fields: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; NETLINK_HEADER];
        for word in [PROCESSES, 1, 7, 0, 0, what, 1, 1000, 2].iter().chain(fields) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn reads_what_the_kernel_tells_of_processes_and_leaves_threads_out() {
        let stamp = Stamp { sequence: 7, cpu: 1, monotonic_ns: (2 << 32) + 1000 };
        let cases: [(u32, &[u32], Told); 6] = [
            (0, &[1], Told::Answer(1)),
            (1, &[10, 10, 11, 11], Told::Fork { parent: 10, child: 11 }),
            (1, &[10, 10, 12, 10], Told::Other),
            (2, &[11, 11], Told::Exec { pid: 11 }),
            (0x8000_0000, &[11, 11, 0x700, 17], Told::Exit { pid: 11, status: 0x700 }),
            (0x8000_0000, &[12, 10, 0, 0], Told::Other),
        ];
        for (what, fields, told) in cases {
            assert_eq!(decode(&message(what, fields)), Some((stamp, told)));
        }
    }

    #[test]
    fn counts_the_messages_that_are_missing() {
        let mut processes = Processes::new(true);
        let missed = [(5, 0), (6, 0), (9, 2), (4, 0)]
            .map(|(sequence, missed)| (processes.missed_before(Stamp { sequence, cpu: 0, monotonic_ns: 0 }), missed));
        assert!(missed.iter().all(|(counted, missed)| counted == missed), "{missed:?}");
        assert_eq!(processes.missed_before(Stamp { sequence: 100, cpu: 1, monotonic_ns: 0 }), 0, "each processor counts for itself");
    }

    proptest! {
        #[test]
        fn reads_any_bytes_or_refuses_them(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = decode(&bytes);
        }
    }
}
