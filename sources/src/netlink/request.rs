//! Questions to the kernel: what there is in a namespace, and which id it has.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{SendFlags, send};

use super::{
    message::{Body, GET_ADDRESS, GET_LINK, GET_NSID, Message, NEW_NSID, messages},
    socket::{LONGEST, ask, receive},
};

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// A dump is begun again this often, if something changed during it.
const ATTEMPTS: usize = 4;

/// A socket that asks.
#[derive(Debug)]
pub(super) struct Requests {
    socket: OwnedFd,
    buffer: Box<[u8; LONGEST]>,
    sequence: u32,
}

/// An attribute: kind, then its value.
fn attribute(kind: u16, value: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = 8;
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    // The length is in the kernel's byte order too.
    bytes[..2].copy_from_slice(&8u16.to_ne_bytes());
    bytes
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: ask()?, buffer: Box::new([0; LONGEST]), sequence: 0 })
    }

    /// The id of a namespace; `None`: it has none, so that the kernel tells nothing of it.
    pub(super) fn nsid(&mut self, namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let body = [&[0; 4][..], &attribute(3, namespace.as_raw_fd())].concat();
        let answer = self.exchange(GET_NSID, REQUEST, &body)?;
        Ok(answer.into_iter().find_map(|message| match message {
            Body::NewNsid(id) => (id >= 0).then_some(id),
            _ => None,
        }))
    }

    /// Gives a namespace an id, so that the kernel tells of it.
    pub(super) fn number(&mut self, namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let body = [&[0; 4][..], &attribute(1, -1), &attribute(3, namespace.as_raw_fd())].concat();
        match self.exchange(NEW_NSID, REQUEST | ACKNOWLEDGE, &body) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => drop(done?),
        }
        self.nsid(namespace)
    }

    /// The links of a namespace, `None` for the host's.
    pub(super) fn links(&mut self, nsid: Option<i32>) -> io::Result<Vec<Body>> {
        let target = nsid.map(|id| attribute(46, id));
        self.dump(GET_LINK, 16, target.as_ref())
    }

    /// Its addresses.
    pub(super) fn addresses(&mut self, nsid: Option<i32>) -> io::Result<Vec<Body>> {
        let target = nsid.map(|id| attribute(10, id));
        self.dump(GET_ADDRESS, 8, target.as_ref())
    }

    fn dump(&mut self, kind: u16, header: usize, target: Option<&[u8; 8]>) -> io::Result<Vec<Body>> {
        let mut body = vec![0; header];
        body.extend(target.into_iter().flatten());
        for _ in 1..ATTEMPTS {
            match self.exchange(kind, REQUEST | DUMP, &body) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
        self.exchange(kind, REQUEST | DUMP, &body)
    }

    /// Sends a request and gathers its answer: one message, or all of a dump.
    fn exchange(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Body>> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
        let mut request = Vec::with_capacity(16 + body.len());
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        send(&self.socket, &request, SendFlags::empty())?;
        let (mut bodies, mut interrupted) = (Vec::new(), false);
        loop {
            let datagram = receive(self.socket.as_fd(), &mut self.buffer)?;
            for message in messages(datagram.bytes) {
                let Message { sequence, interrupted: this, body } =
                    message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                if sequence != self.sequence {
                    continue; // of a question whose answer came too late
                }
                interrupted |= this;
                match body {
                    Body::Done if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    Body::Done | Body::Error(0) => return Ok(bodies),
                    Body::Error(code) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    body => bodies.push(body),
                }
            }
            if flags & (DUMP | ACKNOWLEDGE) == 0 && !bodies.is_empty() {
                return Ok(bodies);
            }
        }
    }
}
