//! A packet socket that the kernel lets DHCP through, and nothing else.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// Longest packet: DHCP keeps to the link's usual size.
pub(super) const LONGEST: usize = 2048;
/// Of a flood on a bridge each port has a copy.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// The kernel's constants are wider than the fields of its own structures.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they are small and positive")]
const fn short(constant: libc::c_int) -> u16 {
    constant as u16
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: short(code.cast_signed()), jt, jf, k }
}

const fn load(kind: u32, at: u32) -> libc::sock_filter {
    instruction(kind, 0, 0, at)
}

/// Goes on where the accumulator has `value`, else skips `otherwise` instructions.
const fn must(value: u32, otherwise: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, value)
}

/// Takes the packet where the accumulator has `value`: `skip` instructions lie before the one that takes.
const fn take_if(value: u32, skip: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, 0, value)
}

const fn give(bytes: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
/// What the kernel knows of a packet beside its bytes: here, its Ethernet type.
const ETHERTYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
const UDP: u32 = 17;

/// UDP to the ports of DHCP servers and clients, unfragmented, from the IP header on.
const FILTER: [libc::sock_filter; 19] = [
    load(HALF, ETHERTYPE),
    must(libc::ETH_P_IP.cast_unsigned(), 9),
    load(BYTE, 9),
    must(UDP, 14),
    load(HALF, 6),
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 12, 0, 0x3fff),
    // The length of the IP header, then the port behind it.
    load(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
    load(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2),
    take_if(67, 8),
    take_if(68, 7),
    give(0),
    must(libc::ETH_P_IPV6.cast_unsigned(), 6),
    load(BYTE, 6),
    must(UDP, 4),
    load(HALF, 42),
    take_if(546, 1),
    must(547, 1),
    give(2048),
    give(0),
];

/// A packet as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) bytes: usize,
    pub(super) interface: i32,
    /// It was longer than the buffer.
    pub(super) is_cut: bool,
}

/// A socket that hears DHCP on all interfaces of this network namespace, what the host sends itself included. It does not block.
#[expect(unsafe_code, reason = "packet sockets and their filters, which no library makes in this order")]
pub(super) fn listen() -> io::Result<OwnedFd> {
    // With protocol 0 it hears nothing until it is bound, and by then the filter is there.
    // SAFETY: no pointers; the descriptor is owned at once.
    let fd = unsafe {
        let fd = check(libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    let mut filter = FILTER;
    let program = libc::sock_fprog { len: 19, filter: filter.as_mut_ptr() };
    let address = libc::sockaddr_ll {
        sll_family: short(libc::AF_PACKET),
        sll_protocol: short(libc::ETH_P_ALL).to_be(),
        // SAFETY: all its other fields are numbers, for which zero is a value.
        ..unsafe { mem::zeroed() }
    };
    // SAFETY: each value lives through its call, and its length is told.
    unsafe {
        set(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // Past the host's limit, where that is allowed.
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)
            .or_else(|_| set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER))?;
        check(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length::<libc::sockaddr_ll>()))?;
    }
    Ok(fd)
}

/// The next packet.
#[expect(unsafe_code, reason = "the interface is in the address of a packet socket")]
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8; LONGEST]) -> io::Result<Received> {
    // SAFETY: buffer and address live through the call, and their lengths are told.
    unsafe {
        let mut address: libc::sockaddr_ll = mem::zeroed();
        let mut size = length::<libc::sockaddr_ll>();
        let (data, most) = (buffer.as_mut_ptr().cast(), buffer.len());
        let read = libc::recvfrom(fd.as_raw_fd(), data, most, libc::MSG_TRUNC, (&raw mut address).cast(), &raw mut size);
        let bytes = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        Ok(Received { bytes: bytes.min(LONGEST), interface: address.sll_ifindex, is_cut: bytes > LONGEST })
    }
}

/// Packets that found no room in the socket since the last call.
#[expect(unsafe_code, reason = "an option of packet sockets that no library knows")]
pub(super) fn dropped(fd: BorrowedFd<'_>) -> u64 {
    // SAFETY: the value is two numbers; it lives through the call, and its length is told.
    unsafe {
        let mut statistics: libc::tpacket_stats = mem::zeroed();
        let mut size = length::<libc::tpacket_stats>();
        let value = (&raw mut statistics).cast();
        let read = libc::getsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut size);
        if read == 0 { statistics.tp_drops.into() } else { 0 }
    }
}

#[expect(unsafe_code, reason = "one call for several options")]
unsafe fn set<T>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the caller gives the type that the option takes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length::<T>()) }).map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "structures of the kernel are small")]
const fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
