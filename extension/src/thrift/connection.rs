//! One connection: requests in, replies out, until the peer leaves, is too slow or talks nonsense.

use std::{
    cell::RefCell,
    fmt,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use thrift::{
    TConfiguration,
    protocol::{
        TBinaryInputProtocol, TBinaryOutputProtocol, TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol,
        TStoredInputProtocol,
    },
    server::TProcessor,
};

use super::{
    Strings,
    generated::{ExtensionResponse, ExtensionStatus, ExtensionSyncHandler, ExtensionSyncProcessor},
    server::Limits,
    stream::Timed,
};

/// How a call is answered.
#[derive(Debug)]
pub enum Reply {
    /// A status and few rows.
    Response(ExtensionResponse),
    /// An [`super::Answer`], finished.
    Rows(Vec<u8>),
}

impl Reply {
    /// A failure, shown to who asked.
    pub fn failure(message: impl fmt::Display) -> Self {
        Self::rows(1, &message.to_string(), Vec::new())
    }

    /// Success, with few rows.
    pub fn success(rows: Vec<Strings>) -> Self {
        Self::rows(0, "OK", rows)
    }

    fn rows(code: i32, message: &str, rows: Vec<Strings>) -> Self {
        let status = ExtensionStatus::new(code, message.as_bytes().to_vec(), 0);
        Self::Response(ExtensionResponse::new(status, rows))
    }
}

/// What a server serves. Called from several threads at once.
pub trait Service: Send + Sync {
    /// The extension's id, which osquery gave it.
    fn uuid(&self) -> i64;

    /// Answers a call of the plugin `item` in `registry`.
    fn call(&self, registry: &str, item: &str, request: &Strings) -> Reply;

    /// osquery asks us to end.
    fn shutdown(&self);
}

/// Adapts a [`Service`] to the generated processor, for one request.
struct Request<'s> {
    service: &'s dyn Service,
    rows: RefCell<Option<Vec<u8>>>,
    /// Called when the whole request has arrived.
    arrived: &'s dyn Fn(),
}

impl ExtensionSyncHandler for &Request<'_> {
    fn handle_ping(&self) -> thrift::Result<ExtensionStatus> {
        Ok(ExtensionStatus::new(0, b"pong".to_vec(), self.service.uuid()))
    }

    fn handle_call(&self, registry: Vec<u8>, item: Vec<u8>, request: Strings) -> thrift::Result<ExtensionResponse> {
        (self.arrived)();
        match self.service.call(&String::from_utf8_lossy(&registry), &String::from_utf8_lossy(&item), &request) {
            Reply::Response(response) => Ok(response),
            Reply::Rows(bytes) => {
                // The processor's own reply is thrown away for these.
                self.rows.replace(Some(bytes));
                Ok(ExtensionResponse::default())
            }
        }
    }

    fn handle_shutdown(&self) -> thrift::Result<()> {
        self.service.shutdown();
        Ok(())
    }
}

/// Where a connection is, for who decides which one to drop when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for (the rest of) a request.
    Waiting,
    /// A request is being answered.
    Answering,
}

/// Answers the requests of one peer on the caller's thread, as [`super::Server`] does on one of its own. `Ok` is a peer that
/// left, or was told that it made no sense.
pub fn attend(stream: UnixStream, service: &dyn Service, limits: &Limits) -> thrift::Result<()> {
    converse(stream, service, limits, &|_| {})
}

/// The same, telling where the connection is.
pub(super) fn converse(stream: UnixStream, service: &dyn Service, limits: &Limits, enter: &dyn Fn(Phase)) -> thrift::Result<()> {
    let mut output = Timed::new(stream.try_clone()?);
    let bounds = TConfiguration::builder()
        .max_message_size(Some(limits.request_bytes))
        .max_frame_size(None)
        .max_string_size(Some(limits.request_bytes))
        .max_container_size(Some(1024))
        .max_recursion_depth(Some(16))
        .build()?;
    // Not strict: a request with and one without a version in its header are both understood.
    let mut input = TBinaryInputProtocol::with_config(BufReader::new(Timed::new(stream)), false, bounds);
    loop {
        enter(Phase::Waiting);
        input.transport.get_mut().allow(limits.idle, limits.request_bytes);
        if input.transport.fill_buf()?.is_empty() {
            return Ok(());
        }
        input.transport.get_mut().allow(limits.request, limits.request_bytes);
        let header = input.read_message_begin()?;
        let request = Request { service, rows: RefCell::new(None), arrived: &|| enter(Phase::Answering) };
        let mut reply = Vec::new();
        ExtensionSyncProcessor::new(&request)
            .process(&mut TStoredInputProtocol::new(&mut input, header.clone()), &mut TBinaryOutputProtocol::new(&mut reply, true))?;
        let mut output_bytes = |bytes: &[u8]| -> io::Result<()> {
            output.allow(limits.answer, 0);
            output.write_all(bytes)
        };
        if let Some(rows) = request.rows.take() {
            let mut head = Vec::new();
            let reply = TMessageIdentifier::new(header.name, TMessageType::Reply, header.sequence_number);
            TBinaryOutputProtocol::new(&mut head, true).write_message_begin(&reply)?;
            output_bytes(&head)?;
            output_bytes(&rows)?;
        } else {
            output_bytes(&reply)?;
            if reply.get(3) == Some(&EXCEPTION) {
                // The request was not understood to its end: what follows in the stream has no meaning.
                return Ok(());
            }
        }
    }
}

/// The message type of an exception, fourth byte of a strict header.
const EXCEPTION: u8 = 3;
