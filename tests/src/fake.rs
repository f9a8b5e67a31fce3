//! A daemon that says what a test wants: HTTP over a UNIX socket, as far as a Docker client asks for it.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::Result;
use tempfile::TempDir;

/// Answers one request: the path (with its query) and the connection to write to, which is closed afterwards.
pub trait Answer: Fn(&str, &mut UnixStream) -> std::io::Result<()> + Send + Sync + 'static {}
impl<F: Fn(&str, &mut UnixStream) -> std::io::Result<()> + Send + Sync + 'static> Answer for F {}

/// Listens until the test process ends.
pub struct Fake {
    dir: TempDir,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fake").field(&self.dir.path()).finish()
    }
}

impl Fake {
    pub fn start(answer: impl Answer) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mayfly-fake-").tempdir_in("/tmp")?;
        listen(&dir.path().join("docker.sock"), Arc::new(answer))?;
        Ok(Self { dir })
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }
}

/// Listens at `socket` until the test process ends.
pub fn listen(socket: &Path, answer: Arc<impl Answer>) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            let answer = Arc::clone(&answer);
            // A client that goes away while it is answered is its own business.
            thread::spawn(move || serve(&stream, &*answer).ok());
        }
    });
    Ok(())
}

fn serve(stream: &UnixStream, answer: &impl Answer) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("/");
    answer(path, &mut stream.try_clone()?)?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Writes a whole JSON answer.
pub fn json(stream: &mut UnixStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Begins an answer that goes on until the connection ends.
pub fn begin(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
}

/// What a daemon without containers answers to everything but `/events`.
pub fn empty(path: &str, stream: &mut UnixStream) -> std::io::Result<()> {
    match path.trim_start_matches("/v1.41").split('?').next().unwrap_or_default() {
        "/containers/json" | "/images/json" => json(stream, "[]"),
        "/version" => json(stream, r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#),
        "/info" => json(stream, r#"{"ID":"FAKE","Containers":0,"ServerVersion":"20.10.24"}"#),
        "/_ping" => json(stream, "OK"),
        _ => {
            let body = r#"{"message":"no such thing"}"#;
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
        }
    }
}

/// The time, in UNIX nanoseconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// One event of Docker's stream.
pub fn event(action: &str, id: &str, time_ns: i64, attributes: &serde_json::Value) -> String {
    let seconds = time_ns / 1_000_000_000;
    let actor = serde_json::json!({ "ID": id, "Attributes": attributes });
    let event = serde_json::json!({
        "status": action, "id": id, "Type": "container", "Action": action, "Actor": actor, "scope": "local", "time": seconds, "timeNano": time_ns,
    });
    format!("{event}\n")
}
