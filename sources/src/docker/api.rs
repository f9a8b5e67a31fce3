//! The Engine API, as far as it is needed: GET, JSON answers, a stream of lines.
//!
//! Straight on hyper, with answers decoded leniently: a client with fixed models drops the rest of its buffer at the first event type or state that it does
//! not know, and reads a line of any length into memory. What listens on a user's socket is not trusted.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::{TcpStream, UnixStream};

use crate::error::SourceError;

/// Longest answer and longest line of a stream that is read; a label may be a megabyte, and an inspect repeats labels.
const MAX_ANSWER: usize = 16 << 20;
const MAX_LINE: usize = 4 << 20;
/// What is kept of an error's text.
const MAX_MESSAGE: usize = 300;
/// The version that is spoken where the daemon allows it.
const SPOKEN: Version = Version(1, 41);

/// One daemon's API; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Api {
    endpoint: Arc<str>,
    target: Arc<Target>,
    version: Version,
}

#[derive(Debug)]
enum Target {
    Socket(PathBuf),
    Tcp(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u16, u16);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// What `/version` tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct About {
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    components: Option<Vec<Component>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Component {
    name: String,
}

impl Api {
    /// For `unix:///…` or `tcp://HOST:PORT`.
    pub(super) fn new(endpoint: &Arc<str>) -> Result<Self, SourceError> {
        let target = match (crate::discover::socket_path(endpoint), endpoint.strip_prefix("tcp://")) {
            (Some(path), _) => Target::Socket(path),
            (None, Some(authority)) if !authority.is_empty() => Target::Tcp(authority.to_owned()),
            _ => {
                let why = "neither unix:// nor tcp://";
                return Err(SourceError::Unsupported { endpoint: endpoint.to_string(), why });
            }
        };
        Ok(Self { endpoint: Arc::clone(endpoint), target: Arc::new(target), version: SPOKEN })
    }

    /// Agrees on a version with the daemon. Answers whether it is Podman.
    pub(super) async fn negotiate(&mut self) -> Result<bool, SourceError> {
        let about: About = self.get_at("/version".to_owned(), Duration::from_secs(10)).await?;
        let newest = Version::parse(&about.api_version).unwrap_or(SPOKEN);
        let oldest = Version::parse(&about.min_api_version).unwrap_or(SPOKEN);
        self.version = SPOKEN.min(newest).max(oldest);
        Ok(about.components.iter().flatten().any(|c| c.name.starts_with("Podman")))
    }

    /// The answer to `GET /v1.XX/…`, whole.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, SourceError> {
        self.get_at(self.versioned(path), within).await
    }

    /// The answer to `GET /v1.XX/…`, line by line, for as long as the daemon keeps it open.
    pub(super) async fn lines(&self, path: &str) -> Result<Lines, SourceError> {
        let path = self.versioned(path);
        let within = Duration::from_secs(30);
        let body = self.in_time(&path, within, self.send(&path)).await?;
        Ok(Lines { body, buffer: Vec::new(), scanned: 0, skipping: false })
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}.{}{path}", self.version.0, self.version.1)
    }

    async fn get_at<T: DeserializeOwned>(&self, path: String, within: Duration) -> Result<T, SourceError> {
        let read = async { self.read(&path, self.send(&path).await?, MAX_ANSWER).await };
        let answer = self.in_time(&path, within, read).await?;
        serde_json::from_slice(&answer).map_err(|reason| SourceError::Nonsense {
            endpoint: self.endpoint.to_string(),
            request: path,
            reason: reason.into(),
        })
    }

    async fn in_time<T>(&self, path: &str, within: Duration, work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
        let silent = |_| SourceError::Silent { endpoint: self.endpoint.to_string(), request: path.to_owned(), after: within };
        tokio::time::timeout(within, work).await.map_err(silent)?
    }

    /// Sends a request on a connection of its own; answers the body of a success.
    async fn send(&self, path: &str) -> Result<Incoming, SourceError> {
        let open = |reason| SourceError::Open { endpoint: self.endpoint.to_string(), reason };
        let mut sender = match &*self.target {
            Target::Socket(path) => self.shake(TokioIo::new(UnixStream::connect(path).await.map_err(open)?)).await?,
            Target::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(open)?;
                // A peer that vanished without a word is noticed, if late.
                rustix::net::sockopt::set_socket_keepalive(&stream, true).map_err(|error| open(error.into()))?;
                self.shake(TokioIo::new(stream)).await?
            }
        };
        let request = Request::get(path).header(HOST, "docker").body(Empty::new()).map_err(|e| self.broken(path, e))?;
        let answer = sender.send_request(request).await.map_err(|e| self.broken(path, e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let text = self.read(path, answer.into_body(), 64 << 10).await.unwrap_or_default();
        Err(SourceError::Refused {
            endpoint: self.endpoint.to_string(),
            request: path.to_owned(),
            status: status.as_u16(),
            message: message(&text),
        })
    }

    /// Begins a connection; it is driven in the background and ends with its sender and body.
    async fn shake<S>(&self, stream: TokioIo<S>) -> Result<http1::SendRequest<Empty<Bytes>>, SourceError>
    where
        TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        S: 'static,
    {
        let (sender, connection) = http1::handshake(stream).await.map_err(|e| self.broken("the connection", e))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn read(&self, path: &str, mut body: Incoming, most: usize) -> Result<Vec<u8>, SourceError> {
        let mut answer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broken(path, e))?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            if answer.len() + data.len() > most {
                return Err(SourceError::Nonsense {
                    endpoint: self.endpoint.to_string(),
                    request: path.to_owned(),
                    reason: format!("the answer is longer than {most} bytes").into(),
                });
            }
            answer.extend_from_slice(data);
        }
        Ok(answer)
    }

    pub(super) fn broken(&self, path: &str, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
        SourceError::Broken { endpoint: self.endpoint.to_string(), request: path.to_owned(), reason: reason.into() }
    }
}

/// What an error answer says: `{"message": …}`, or its beginning.
fn message(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let text = serde_json::from_slice::<Error>(answer).map_or_else(|_| String::from_utf8_lossy(answer).into_owned(), |e| e.message);
    text.trim().chars().take(MAX_MESSAGE).collect()
}

/// A stream of lines of bounded length.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// How much of the buffer has no end of line.
    scanned: usize,
    /// In the midst of a line that is too long.
    skipping: bool,
}

/// One line of a stream.
#[derive(Debug)]
pub(super) enum Line {
    Text(Vec<u8>),
    /// Was longer than 4 MiB and thrown away.
    TooLong,
}

impl Lines {
    /// The next line; `None` where the stream ended. Can be dropped while it waits without losing anything.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, hyper::Error> {
        loop {
            if let Some(length) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.scanned + length).collect();
                self.scanned = 0;
                if std::mem::take(&mut self.skipping) {
                    return Ok(Some(Line::TooLong));
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(Line::Text(line)));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.scanned > MAX_LINE {
                self.skipping = true;
                self.buffer.clear();
                self.scanned = 0;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(error),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_daemon_said_and_no_more() {
        assert_eq!(message(br#"{"message":"no such container: x"}"#), "no such container: x");
        assert_eq!(message(b" <html>\xff "), "<html>\u{fffd}");
        assert_eq!(message(&[b'x'; 9999]).len(), MAX_MESSAGE);
    }

    #[test]
    fn only_sockets_and_plain_tcp_are_endpoints() {
        assert!(Api::new(&"unix:///run/docker.sock".into()).is_ok_and(|api| matches!(&*api.target, Target::Socket(_))));
        assert!(Api::new(&"tcp://127.0.0.1:2375".into()).is_ok_and(|api| !matches!(&*api.target, Target::Socket(_))));
        for unsupported in ["ssh://host", "tcp://", "npipe:////./pipe/docker", ""] {
            assert!(matches!(Api::new(&unsupported.into()), Err(SourceError::Unsupported { .. })));
        }
    }
}
