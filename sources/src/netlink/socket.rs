//! Sockets to the kernel's routing netlink: one that hears of every network namespace, one that asks.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with, sockopt};

/// Groups by the bits of `sockaddr_nl`: links, addresses of both families, ids of namespaces.
const GROUPS: u32 = 1 | 1 << 4 | 1 << 8 | 1 << 27;
/// Messages of some thousand containers; without it a burst overruns the socket.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Longest datagram: the kernel makes dumps of at most 32 KiB.
pub(crate) const LONGEST: usize = 64 << 10;
/// The kernel answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// One datagram of netlink.
#[derive(Debug)]
pub(crate) struct Datagram<'b> {
    pub(crate) bytes: &'b [u8],
    /// Which namespace it is of, as the host numbers them; `None`: the host's own.
    pub(crate) nsid: Option<i32>,
}

/// A socket that hears of all namespaces that have an id in the host's. It does not block.
// Protocol `None` is 0, which is NETLINK_ROUTE.
pub(super) fn listen() -> io::Result<OwnedFd> {
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // Without the privilege the usual size has to do.
    if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER)?;
    }
    switch_on(fd.as_fd(), libc::NETLINK_LISTEN_ALL_NSID)?;
    bind(&fd, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(fd)
}

/// A socket that is answered, within two seconds.
pub(super) fn ask() -> io::Result<OwnedFd> {
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // Only then a dump looks at which namespace it is asked about.
    switch_on(fd.as_fd(), NETLINK_GET_STRICT_CHK)?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
    bind(&fd, &SocketAddrNetlink::new(0, 0))?;
    Ok(fd)
}

/// The next datagram of the kernel; others, and those that were cut, are passed over.
pub(crate) fn receive<'b>(fd: BorrowedFd<'_>, buffer: &'b mut [u8; LONGEST]) -> io::Result<Datagram<'b>> {
    loop {
        let mut space = cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let is_kernels = message.address.is_some_and(|from| from.pid() == 0);
        let (length, is_cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
        let nsid = message.cmsgs()?.find_map(|control| nsid(&control));
        if is_kernels && !is_cut {
            return Ok(Datagram { bytes: &buffer[..length], nsid });
        }
    }
}

const NETLINK_GET_STRICT_CHK: libc::c_int = 12;

fn nsid(control: &ControlMessageOwned) -> Option<i32> {
    let ControlMessageOwned::Unknown(control) = control else { return None };
    let header = &control.cmsg_header;
    let is_nsid = header.cmsg_level == libc::SOL_NETLINK && header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
    is_nsid.then(|| control.data_bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)))?
}

#[expect(unsafe_code, reason = "options of netlink sockets that no library knows")]
fn switch_on(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the value is an int of four bytes, as is told, that lives through the call.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
