//! A server that answers gRPC as a test wants.

use std::path::Path;

use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use prost::{Message, bytes::Bytes};
use tokio::net::{UnixListener, UnixStream};

/// A call.
pub(crate) struct Call {
    /// `Service/Method`, without the package.
    pub(crate) method: String,
    /// The containerd namespace that it is about.
    pub(crate) namespace: String,
    pub(crate) body: Bytes,
}

/// What is answered to it.
pub(crate) struct Reply(SendStream<Bytes>);

impl Reply {
    pub(crate) fn send(&mut self, message: &impl Message) {
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        self.0.send_data(frame.into(), false).unwrap();
    }

    /// Ends it with a status; `0` is success.
    pub(crate) fn end(mut self, status: &'static str) {
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
        self.0.send_trailers(HeaderMap::from_iter([status])).unwrap();
    }

    /// Breaks it off, as a daemon that dies does.
    pub(crate) fn reset(mut self) {
        self.0.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// Serves all connections to a socket, each call by `answer`.
pub(crate) fn serve<A, F>(socket: &Path, answer: A)
where
    A: Fn(Call, Reply) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve_one(connection, answer.clone()));
        }
    });
}

async fn serve_one<A, F>(connection: UnixStream, answer: A)
where
    A: Fn(Call, Reply) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connection = h2::server::handshake(connection).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(take(request, respond, answer.clone()));
    }
}

async fn take<A, F>(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, answer: A)
where
    A: Fn(Call, Reply) -> F,
    F: Future<Output = ()>,
{
    let (head, mut body) = request.into_parts();
    let body = body.data().await.map_or_else(Bytes::new, Result::unwrap);
    let namespace = head.headers.get("containerd-namespace").map_or("", |name| name.to_str().unwrap()).to_owned();
    let method = head.uri.path().rsplit('.').next().unwrap().to_owned();
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let stream = respond.send_response(response, false).unwrap();
    answer(Call { method, namespace, body }, Reply(stream)).await;
}
