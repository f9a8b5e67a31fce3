//! gRPC over a UNIX socket, as containerd and the CRI speak it.

use std::{future::ready, io, path::Path};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Connects once. A channel that reconnected by itself would hide from its user that a stream of events broke.
pub(crate) async fn connect(socket: &Path) -> io::Result<Channel> {
    let mut connection = Some(TokioIo::new(UnixStream::connect(socket).await?));
    let connector = tower::service_fn(move |_| ready(connection.take().ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from)));
    // The address only fills a header; the connection is there already.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.map_err(io::Error::other)
}

#[cfg(test)]
pub(crate) mod fake;
