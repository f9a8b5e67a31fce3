//! The way into osquery: calls to its extension manager, each on a connection of its own and bounded in time.
//!
//! Never called from inside `generate` but for [`Manager::stored`]: most of the rest would wait for the very query that
//! waits for us.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, BufWriter},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use mayfly_tables::{CoreColumn, CoreTable};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use thrift::{
    ProtocolErrorKind, TConfiguration,
    protocol::{TBinaryInputProtocol, TBinaryOutputProtocol},
};

use crate::thrift::{
    ExtensionManagerSyncClient, ExtensionResponse, ExtensionStatus, InternalExtensionInfo, Strings, TExtensionManagerSyncClient,
    TExtensionSyncClient, TOO_LONG, Timed, check_peer,
};

/// The most that osquery may answer with, in bytes.
const MOST_BYTES: usize = 64 << 20;
/// The most rows of an answer, and fields of a row.
const MOST_ROWS: usize = 1 << 20;

type Client = ExtensionManagerSyncClient<TBinaryInputProtocol<BufReader<Timed>>, TBinaryOutputProtocol<BufWriter<Timed>>>;

/// Why osquery did not do what we asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    #[error("cannot reach osquery at {}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("osquery broke off {call}")]
    Broken { call: &'static str, source: thrift::Error },
    #[error("osquery refused {call}: {message}")]
    Refused { call: &'static str, message: String },
}

impl ManagerError {
    /// Whether osquery answered, but with more than was to be taken.
    pub(crate) fn is_too_long(&self) -> bool {
        match self {
            Self::Broken { source: thrift::Error::Protocol(error), .. } => error.kind == ProtocolErrorKind::SizeLimit,
            // Thrift keeps no more than the text of what went wrong below it.
            Self::Broken { source: thrift::Error::Transport(error), .. } => error.message == TOO_LONG,
            _ => false,
        }
    }
}

/// A row of osquery's: column name to value.
pub type Row = BTreeMap<String, String>;

/// An extension as osquery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub uuid: i64,
    pub name: String,
}

/// A table's routes: what it declares when it registers.
pub type Routes = BTreeMap<String, Vec<Strings>>;

/// osquery's extension manager at a socket. Holds no connection.
#[derive(Clone, Debug)]
pub struct Manager {
    socket: PathBuf,
    patience: Duration,
    most_bytes: usize,
}

impl Manager {
    /// Calls to `socket` may take `patience` each.
    pub fn new(socket: impl Into<PathBuf>, patience: Duration) -> Self {
        Self { socket: socket.into(), patience, most_bytes: MOST_BYTES }
    }

    /// An answer that is longer than that breaks the call off.
    #[must_use]
    pub fn answering_at_most(self, most_bytes: usize) -> Self {
        Self { most_bytes, ..self }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn connect(&self) -> Result<Client, ManagerError> {
        let open = || -> io::Result<(Timed, Timed)> {
            let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // Bounds the wait in `connect`, too: a manager that hangs no longer accepts.
            sockopt::set_socket_timeout(&stream, sockopt::Timeout::Send, Some(self.patience))?;
            connect(&stream, &SocketAddrUnix::new(&self.socket)?)?;
            let stream = UnixStream::from(stream);
            check_peer(&stream)?;
            let (mut reads, mut writes) = (Timed::new(stream.try_clone()?), Timed::new(stream));
            reads.allow(self.patience, self.most_bytes);
            writes.allow(self.patience, 0);
            Ok((reads, writes))
        };
        let (reads, writes) = open().map_err(|source| ManagerError::Unreachable { socket: self.socket.clone(), source })?;
        // The generated code makes room for as many elements as a list says it has: say how many may be believed.
        let bounds = TConfiguration::builder()
            .max_message_size(Some(self.most_bytes))
            .max_frame_size(None)
            .max_string_size(Some(self.most_bytes))
            .max_container_size(Some(MOST_ROWS))
            .build()
            .map_err(|source| ManagerError::Broken { call: "connect", source })?;
        let input = TBinaryInputProtocol::with_config(BufReader::new(reads), false, bounds);
        Ok(Client::new(input, TBinaryOutputProtocol::new(BufWriter::new(writes), true)))
    }

    fn ask<T>(&self, call: &'static str, ask: impl FnOnce(&mut Client) -> thrift::Result<T>) -> Result<T, ManagerError> {
        ask(&mut self.connect()?).map_err(|source| ManagerError::Broken { call, source })
    }

    fn rows(call: &'static str, response: ExtensionResponse) -> Result<Vec<Row>, ManagerError> {
        accepted(call, response.status)?;
        let rows = response.response.unwrap_or_default();
        Ok(rows.into_iter().map(|row| row.into_iter().map(|(name, value)| (lossy(name), lossy(value))).collect()).collect())
    }

    /// The extensions that are registered. (A `ping` would not tell that we no longer are.)
    pub fn extensions(&self) -> Result<Vec<Listed>, ManagerError> {
        let listed = self.ask("extensions", TExtensionManagerSyncClient::extensions)?;
        Ok(listed.into_iter().map(|(uuid, info)| Listed { uuid, name: lossy(info.name.unwrap_or_default()) }).collect())
    }

    /// osquery's flags and their values.
    pub fn options(&self) -> Result<BTreeMap<String, String>, ManagerError> {
        let options = self.ask("options", TExtensionManagerSyncClient::options)?;
        Ok(options.into_iter().map(|(name, info)| (lossy(name), lossy(info.value.unwrap_or_default()))).collect())
    }

    /// Registers an extension of `name` with its tables; gives the id that osquery chose.
    pub fn register(&self, name: &str, version: &str, tables: Routes) -> Result<i64, ManagerError> {
        // Any SDK from 1.7.7 on is accepted; this is the oldest whose every call we answer.
        let sdk = b"5.0.0".to_vec();
        let info = InternalExtensionInfo::new(name.as_bytes().to_vec(), version.as_bytes().to_vec(), sdk.clone(), sdk);
        let registry = BTreeMap::from([("table".to_owned(), tables)]);
        let status = self.ask("registerExtension", |client| client.register_extension(info, registry))?;
        let uuid = status.uuid.unwrap_or_default();
        accepted("registerExtension", Some(status))?;
        Ok(uuid)
    }

    /// Takes our registration back.
    pub fn deregister(&self, uuid: i64) -> Result<(), ManagerError> {
        accepted("deregisterExtension", Some(self.ask("deregisterExtension", |client| client.deregister_extension(uuid))?))
    }

    /// Runs SQL in osquery. The order of columns is lost on the way; see [`Self::query_columns`].
    pub fn query(&self, sql: &str) -> Result<Vec<Row>, ManagerError> {
        Self::rows("query", self.ask("query", |client| client.query(sql.as_bytes().to_vec()))?)
    }

    /// The columns of a query: name and type, in order.
    pub fn query_columns(&self, sql: &str) -> Result<Vec<(String, String)>, ManagerError> {
        let response = self.ask("getQueryColumns", |client| client.get_query_columns(sql.as_bytes().to_vec()))?;
        Ok(Self::rows("getQueryColumns", response)?.into_iter().flatten().collect())
    }

    /// Calls a plugin of osquery's own.
    pub fn call(&self, registry: &str, item: &str, request: &[(&str, &str)]) -> Result<Vec<Row>, ManagerError> {
        self.session()?.call(registry, item, request)
    }

    /// A connection for many calls, which all of them together may use for as long as one call may take otherwise.
    pub(crate) fn session(&self) -> Result<Session, ManagerError> {
        Ok(Session { client: self.connect()? })
    }

    /// A value in osquery's database; `None` if there is none. Safe inside `generate`.
    pub fn stored(&self, domain: &str, key: &str) -> Result<Option<String>, ManagerError> {
        match self.call("database", "", &[("action", "get"), ("domain", domain), ("key", key)]) {
            Ok(rows) => Ok(rows.into_iter().next().and_then(|mut row| row.remove("v"))),
            // A key that is not there is a failure to osquery.
            Err(ManagerError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all tables that osquery has now.
    pub fn table_names(&self) -> Result<BTreeSet<String>, ManagerError> {
        let rows = self.query("SELECT name FROM osquery_registry WHERE registry = 'table'")?;
        Ok(rows.into_iter().filter_map(|mut row| row.remove("name")).collect())
    }

    /// How osquery describes a table.
    pub fn describe(&self, table: &str) -> Result<CoreTable, ManagerError> {
        let rows = self.call("table", table, &[("action", "columns")])?;
        let text = |row: &Row, name: &str| row.get(name).cloned().unwrap_or_default();
        let number = |row: &Row, name: &str| text(row, name).parse().unwrap_or_default();
        let is = |row: &&Row, id: &str| row.get("id").is_some_and(|found| found == id);
        let columns = rows.iter().filter(|row| is(row, "column"));
        let columns = columns.map(|row| CoreColumn { name: text(row, "name"), kind: text(row, "type"), op: number(row, "op") }).collect();
        let attributes = rows.iter().find(|row| is(row, "attributes")).map_or(0, |row| number(row, "attributes"));
        Ok(CoreTable { name: table.to_owned(), columns, attributes })
    }

    /// The id that osquery's database carries for as long as it lives; empty where osquery does not tell.
    pub fn instance_id(&self) -> Result<String, ManagerError> {
        let rows = self.query("SELECT instance_id FROM osquery_info")?;
        Ok(rows.into_iter().next().and_then(|mut row| row.remove("instance_id")).unwrap_or_default())
    }
}

/// A connection to osquery. Of no use once a call on it was broken off.
pub(crate) struct Session {
    client: Client,
}

impl Session {
    /// Calls a plugin of osquery's own.
    pub(crate) fn call(&mut self, registry: &str, item: &str, request: &[(&str, &str)]) -> Result<Vec<Row>, ManagerError> {
        let request = request.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        let response = self.client.call(registry.as_bytes().to_vec(), item.as_bytes().to_vec(), request);
        Manager::rows("call", response.map_err(|source| ManagerError::Broken { call: "call", source })?)
    }
}

fn accepted(call: &'static str, status: Option<ExtensionStatus>) -> Result<(), ManagerError> {
    let status = status.unwrap_or_default();
    match status.code {
        Some(0) => Ok(()),
        _ => Err(ManagerError::Refused { call, message: lossy(status.message.unwrap_or_default()) }),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
