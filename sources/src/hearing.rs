//! What is the same of all sources that speak gRPC: connecting, and hearing a stream of events until it ends.

use mayfly_history::Nanos;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{error::SourceError, grpc, supervise::Site};

/// Events read ahead while something else is waited for; the server keeps the rest.
const READ_AHEAD: usize = 1024;

/// A stream of events, read by a task of its own.
pub(crate) struct Hearing<T> {
    site: Site,
    events: mpsc::Receiver<Result<T, Status>>,
    heard: u64,
    /// Ends with this.
    _reader: JoinSet<()>,
}

/// What is heard next.
pub(crate) enum Heard<T> {
    Event(T),
    /// What was told since that time was lost on its way to the store: all that exists is to be told once more.
    Loss(Nanos),
    /// Nothing ever: the server tells no events.
    Refused(Status),
    /// Nothing any more: it is to stop.
    Stop,
}

impl<T: Send + 'static> Hearing<T> {
    /// Begins to read what `opening` gives. Servers answer it with their first event only, so that it is not waited for.
    pub(crate) fn begin(site: &Site, opening: impl Future<Output = Result<Streaming<T>, Status>> + Send + 'static) -> Self {
        let (send, events) = mpsc::channel(READ_AHEAD);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            if let Err(status) = read(opening, &send).await {
                let _ = send.send(Err(status)).await;
            }
        });
        Self { site: site.clone(), events, heard: 0, _reader: reader }
    }

    /// Waits for the next; may be given up at any time.
    ///
    /// # Errors
    /// When the stream broke or was closed.
    pub(crate) async fn next(&mut self, stop: &CancellationToken) -> Result<Heard<T>, SourceError> {
        tokio::select! {
            () = stop.cancelled() => Ok(Heard::Stop),
            since = self.site.feed.resync_wanted() => Ok(Heard::Loss(since)),
            event = self.events.recv() => match event {
                Some(Ok(event)) => {
                    self.heard += 1;
                    Ok(Heard::Event(event))
                }
                Some(Err(status)) if self.heard == 0 && matches!(status.code(), Code::Unimplemented | Code::Unknown) => {
                    Ok(Heard::Refused(status))
                }
                Some(Err(status)) => Err(self.site.broken("events", status)),
                None => Err(SourceError::Closed { endpoint: self.site.endpoint.to_string(), events: self.heard }),
            },
        }
    }
}

impl Site {
    /// Connects to its socket.
    pub(crate) async fn connect(&self) -> Result<Channel, SourceError> {
        let endpoint = || self.endpoint.to_string();
        let why = "what speaks gRPC listens on unix:// sockets only";
        let socket = self.socket().ok_or_else(|| SourceError::Unsupported { endpoint: endpoint(), why })?;
        grpc::connect(&socket).await.map_err(|reason| SourceError::Open { endpoint: endpoint(), reason })
    }

    /// What went wrong with a request.
    pub(crate) fn broken(&self, request: &str, reason: Status) -> SourceError {
        SourceError::Broken { endpoint: self.endpoint.to_string(), request: request.into(), reason: reason.into() }
    }
}

async fn read<T>(
    opening: impl Future<Output = Result<Streaming<T>, Status>>,
    events: &mpsc::Sender<Result<T, Status>>,
) -> Result<(), Status> {
    let mut stream = opening.await?;
    while let Some(event) = stream.message().await? {
        if events.send(Ok(event)).await.is_err() {
            break;
        }
    }
    Ok(())
}
