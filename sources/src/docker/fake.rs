//! A daemon that answers what a test wants, valid or not.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use mayfly_history::{
    Feed,
    recorder::{Handle, Sinks},
    sink::Bell,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::broadcast,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::files::Disk;
use crate::{
    config::SourcesConfig,
    supervise::{Site, Source},
};

pub(super) const VERSION: &str = r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12","Components":[{"Name":"Engine"}]}"#;
pub(super) const INSPECT: &str = r#"{"Id":"ab12","Name":"/job","Image":"sha256:d5","Created":"2026-11-22T20:00:28Z","Config":{"Image":"busybox","Labels":{"l":"v"}},
"State":{"Status":"running","Pid":2147483647,"StartedAt":"2026-11-22T20:00:29Z"},"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}"#;
pub(super) const IMAGES: &str = r#"[{"Id":"sha256:d5","RepoTags":["busybox:latest"],"RepoDigests":["busybox@sha256:99"]},{"Id":7}]"#;
pub(super) const IMAGE: &str = r#"{"Id":"sha256:d5","RepoDigests":["busybox@sha256:99"]}"#;

/// What to do with a request.
pub(super) enum Answer {
    /// A success with this body, then close.
    Json(String),
    /// A success with this body, which is never ended.
    Open(String),
    /// These bytes, then close.
    Raw(Vec<u8>),
}

pub(super) struct Fake {
    dir: tempfile::TempDir,
    /// The paths that were asked for.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
    hang_up: CancellationToken,
    more: broadcast::Sender<String>,
    pub(super) sinks: Sinks,
    pub(super) feed: Feed,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(super) fn new(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        let hang_up = CancellationToken::new();
        let hung = hang_up.clone();
        let (more, _) = broadcast::channel(64);
        let teller = more.clone();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, log, hang) = (Arc::clone(&answer), Arc::clone(&log), hung.clone());
                let mut told = teller.subscribe();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
                    let what = answer(&path);
                    log.lock().unwrap().push(path);
                    let chunk = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
                    let (bytes, hold) = match what {
                        Answer::Json(body) => {
                            (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), false)
                        }
                        Answer::Open(body) if body.is_empty() => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), true),
                        Answer::Open(body) => (chunk(&body).into_bytes(), true),
                        Answer::Raw(bytes) => (bytes, false),
                    };
                    let _ = stream.write_all(&bytes).await;
                    if hold {
                        // Until the client goes, or it is told to.
                        loop {
                            tokio::select! {
                                () = hang.cancelled() => break,
                                _ = stream.read_u8() => break,
                                more = told.recv() => {
                                    let more: String = more.unwrap();
                                    let _ = stream.write_all(format!("{:x}\r\n{more}\r\n", more.len()).as_bytes()).await;
                                }
                            }
                        }
                    }
                });
            }
        });
        let bell = Bell::default();
        let sinks = Sinks::new(bell);
        let feed = Feed::new("docker", format!("unix://{}", dir.path().join("docker.sock").display()));
        Self { dir, asked, server, hang_up, more, sinks, feed }
    }

    /// A daemon like any other, but for its events.
    pub(super) fn with_events(events: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |path| match path {
            "/version" => Answer::Json(VERSION.into()),
            path if path.contains("/events?") => events(),
            path => Answer::Json(usual(path).into()),
        })
    }

    /// Tells more on the streams that are open.
    pub(super) fn tell(&self, events: String) {
        self.more.send(events).unwrap();
    }

    /// Closes all streams.
    pub(super) fn hang_up(&self) {
        self.hang_up.cancel();
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    pub(super) fn source(&self) -> impl Source + use<> {
        self.source_on(Disk::default())
    }

    /// The same, with Docker's files on a disk of the test's.
    pub(super) fn source_on(&self, disk: Disk) -> impl Source + use<> {
        let docker = super::Docker::new(Site {
            endpoint: Arc::clone(self.feed.endpoint()),
            feed: self.feed.clone(),
            recorder: Handle::detached(self.sinks.clone()),
            config: Arc::new(SourcesConfig::default()),
        });
        super::Docker { disk, ..docker }
    }
}

/// What a daemon with one container, `ab12`, answers.
pub(super) fn usual(path: &str) -> &'static str {
    let path = path.strip_prefix("/v1.41").unwrap_or(path);
    match path {
        "/version" => VERSION,
        "/containers/json?all=1" => r#"[{"Id":"ab12","Names":["/job"],"Image":"busybox","State":"running"}]"#,
        "/containers/ab12/json" => INSPECT,
        "/images/json" => IMAGES,
        "/images/sha256:d5/json" | "/images/busybox/json" => IMAGE,
        _ => "{}",
    }
}
