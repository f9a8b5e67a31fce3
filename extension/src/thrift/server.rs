//! A Thrift server on a UNIX socket that no peer can occupy: a thread a connection, a cap on connections, and limits on
//! what each may take. Calls come concurrently, and a `ping` must be answered while a table is being read.

use std::{
    fmt, fs, io,
    net::Shutdown,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    connection::{Phase, Service, converse},
    stream::check_peer,
};

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Beyond it, the one that has waited longest is dropped.
    pub connections: usize,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// How long a request may take to arrive, from its first byte to its last.
    pub request: Duration,
    /// How long a peer may take to read an answer.
    pub answer: Duration,
    /// Bytes of a request.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            idle: Duration::from_secs(300),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(120),
            request_bytes: 8 << 20,
        }
    }
}

/// A running server. Dropping it closes its connections and removes its socket.
pub struct Server {
    path: PathBuf,
    inode: u64,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    listener: UnixListener,
    service: Arc<dyn Service>,
    limits: Limits,
    stopping: AtomicBool,
    peers: Mutex<Peers>,
    left: Condvar,
}

#[derive(Default)]
struct Peers {
    next: u64,
    here: Vec<Peer>,
}

struct Peer {
    id: u64,
    stream: UnixStream,
    phase: Phase,
    since: Instant,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `path` (a socket left there is replaced), for root and the user that we run as.
    pub fn start(path: &Path, service: Arc<dyn Service>, limits: Limits) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(path)?.ino();
        let shared =
            Arc::new(Shared { listener, service, limits, stopping: AtomicBool::new(false), peers: Mutex::default(), left: Condvar::new() });
        let accepting = thread::Builder::new().name("thrift".into()).spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared)
        })?;
        Ok(Self { path: path.to_owned(), inode, shared, accepting: Some(accepting) })
    }

    /// Whether our socket still lies at its path: osquery deletes it when its worker restarts.
    pub fn is_reachable(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_reachable() {
            // A file that cannot be removed is replaced by whoever binds there next.
            let _ = fs::remove_file(&self.path);
        }
        self.shared.stopping.store(true, SeqCst);
        // Wakes the thread that accepts; the kernel does so for a listening UNIX socket.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.dismiss(Duration::from_secs(3));
    }
}

fn accept(shared: &Arc<Shared>) {
    while !shared.stopping.load(SeqCst) {
        match shared.listener.accept() {
            Ok((stream, _)) => admit(shared, stream),
            Err(_) if shared.stopping.load(SeqCst) => return,
            Err(error) => {
                // Out of descriptors or memory: both pass.
                tracing::warn!(%error, "cannot accept a connection");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    if let Err(error) = check_peer(&stream) {
        return tracing::warn!(%error, "refused a connection");
    }
    let Some(guest) = shared.enlist(&stream) else {
        return tracing::warn!(limit = shared.limits.connections, "refused a connection: all others are being answered");
    };
    let spawned = thread::Builder::new().name("thrift-peer".into()).spawn(move || {
        let Guest { shared, id } = &guest;
        if let Err(error) = converse(stream, &*shared.service, &shared.limits, &|phase| shared.enter(*id, phase)) {
            tracing::debug!(%error, "dropped a connection");
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "refused a connection: no thread for it");
    }
}

/// A connection's place among the peers, given back when its thread ends, however it ends.
struct Guest {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.peers().here.retain(|peer| peer.id != self.id);
        self.shared.left.notify_all();
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more, if need be at the cost of the peer that has waited longest; `None`: all are busy.
    fn enlist(self: &Arc<Self>, stream: &UnixStream) -> Option<Guest> {
        let kept = stream.try_clone().ok()?;
        let mut peers = self.peers();
        if peers.here.len() >= self.limits.connections {
            let longest = (0..peers.here.len()).filter(|i| peers.here[*i].phase == Phase::Waiting).min_by_key(|i| peers.here[*i].since)?;
            let dropped = peers.here.swap_remove(longest);
            let _ = dropped.stream.shutdown(Shutdown::Both);
        }
        let id = peers.next;
        peers.next += 1;
        peers.here.push(Peer { id, stream: kept, phase: Phase::Waiting, since: Instant::now() });
        Some(Guest { shared: Arc::clone(self), id })
    }

    fn enter(&self, id: u64, phase: Phase) {
        if let Some(peer) = self.peers().here.iter_mut().find(|peer| peer.id == id) {
            peer.phase = phase;
            peer.since = Instant::now();
        }
    }

    /// Ends all connections; those that are being answered get `patience`.
    fn dismiss(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut peers = self.peers();
        for peer in &peers.here {
            let _ = peer.stream.shutdown(Shutdown::Read);
        }
        while !peers.here.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            peers = self.left.wait_timeout(peers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for peer in &peers.here {
            let _ = peer.stream.shutdown(Shutdown::Both);
        }
    }
}
