//! A UNIX stream that gives up: on a peer that is slow, and on one that never ends.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::{net::sockopt::socket_peercred, process::geteuid};

/// What is said of a message that has more bytes than are allowed.
pub(crate) const TOO_LONG: &str = "the message is too long";

/// Reads and writes of one message, bounded in time and in bytes.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: UnixStream,
    deadline: Option<Instant>,
    bytes_left: usize,
}

impl Timed {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, deadline: None, bytes_left: 0 }
    }

    /// Begins anew: from now on `within` for everything, and at most `bytes` read.
    pub(crate) fn allow(&mut self, within: Duration, bytes: usize) {
        self.deadline = Instant::now().checked_add(within);
        self.bytes_left = bytes;
    }

    /// What is left of the time; an error when nothing is.
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer was too slow")),
            left => Ok(left),
        }
    }
}

/// Whether root, or our own user, is at the other end; nobody else may ask us or pass for osquery.
pub(crate) fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = socket_peercred(stream)?;
    if peer.uid.is_root() || peer.uid == geteuid() {
        return Ok(());
    }
    let why = format!("the peer is uid {}, neither root nor our user", peer.uid.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// A socket's own timeout reads as "would block"; say what it was.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the peer was too slow"),
        _ => error,
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes_left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TOO_LONG));
        }
        self.stream.set_read_timeout(self.left()?)?;
        let most = buffer.len().min(self.bytes_left);
        let read = self.stream.read(&mut buffer[..most]).map_err(explain)?;
        self.bytes_left -= read;
        Ok(read)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes).map_err(explain)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
