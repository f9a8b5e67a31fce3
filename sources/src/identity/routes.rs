//! Tells that addresses, interfaces or routes changed; not which: they are read again.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use tokio::io::{Interest, unix::AsyncFd};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

#[derive(Debug)]
pub(crate) struct Routes(AsyncFd<OwnedFd>);

impl Routes {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE, whose number is 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
        // SAFETY: an `OwnedFd` answers the same descriptor until it is dropped.
        #[expect(unsafe_code, reason = "the safe constructor is deprecated: it trusts any `AsRawFd`")]
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(socket?))
    }

    /// Waits until something changed.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        // Stays readable until what waits was forgotten.
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// Drops what waits: whoever calls this reads everything next.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut message = [0; 8192];
        loop {
            match recv(self.0.get_ref(), &mut message, RecvFlags::DONTWAIT) {
                // More than the kernel keeps is no loss: it changed.
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Armed for what comes from now on.
        use futures_util::FutureExt;
        if let Some(Ok(mut ready)) = self.0.readable().now_or_never() {
            ready.clear_ready();
        }
        Ok(())
    }
}
