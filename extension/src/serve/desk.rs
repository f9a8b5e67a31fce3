//! Where osquery's calls are answered.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use mayfly_history::{TableKind, TableSchema, chain, store::StoreError};
use mayfly_tables::{Table, TableError};

use super::ServeOptions;
use crate::{
    context::{self, ContextError},
    delivery::{Delivery, DeliveryError, Registration, Scope, show_account},
    manager::{Manager, Routes},
    thrift::{Answer, Reply, Service, Strings},
};

/// The longest answer, in bytes: core needs several times as much to read it.
const LONGEST_ANSWER: usize = 64 << 20;

/// osquery's attribute of tables whose every row is an event.
const EVENT_BASED: &str = "4";

/// Answers for one registration.
pub(super) struct Desk {
    pub(super) uuid: i64,
    pub(super) tables: Vec<&'static dyn Table>,
    pub(super) state_dir: PathBuf,
    pub(super) manager: Manager,
    pub(super) registration: Registration,
    pub(super) delivery: Arc<Delivery>,
    pub(super) options: Arc<ServeOptions>,
    pub(super) ended: AtomicBool,
}

/// Why a call is not answered with rows; the text is shown to who asked.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("mayfly has no {registry} plugin {item:?}")]
    NoTable { registry: String, item: String },
    #[error("mayfly does not know the action {0:?}")]
    UnknownAction(String),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the answer of {0} would be longer than {LONGEST_ANSWER} bytes; the next run reads fewer events")]
    TooLong(&'static str),
}

impl Service for Desk {
    fn uuid(&self) -> i64 {
        self.uuid
    }

    fn call(&self, registry: &str, item: &str, request: &Strings) -> Reply {
        self.answer(registry, item, request).unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(registry, item, error, "a call failed");
            Reply::failure(error)
        })
    }

    fn shutdown(&self) {
        if !self.ended.swap(true, SeqCst) {
            tracing::info!("osquery asks us to end");
            (self.options.on_shutdown)();
        }
    }
}

impl Desk {
    fn answer(&self, registry: &str, item: &str, request: &Strings) -> Result<Reply, CallError> {
        let table = self.tables.iter().find(|table| registry == "table" && table.schema().name == item);
        let table = *table.ok_or_else(|| CallError::NoTable { registry: registry.into(), item: item.into() })?;
        match request.get(b"action".as_slice()).map(Vec::as_slice) {
            Some(b"generate") => self.generate(table, request.get(b"context".as_slice()).map(Vec::as_slice)),
            Some(b"columns") => Ok(Reply::success(route(table.schema()))),
            Some(b"insert" | b"update" | b"delete") => Ok(Reply::success(vec![strings([("status", "readonly")])])),
            other => Err(CallError::UnknownAction(String::from_utf8_lossy(other.unwrap_or_default()).into_owned())),
        }
    }

    fn generate(&self, table: &dyn Table, context: Option<&[u8]>) -> Result<Reply, CallError> {
        let schema = table.schema();
        let mut query = context::parse(schema, context)?;
        let mut store = table.home().open(&self.state_dir)?;
        if schema.kind == TableKind::Live {
            show_account(&mut store, &self.state_dir, Some(self.options.feed.status()));
        }
        let scope = if schema.kind == TableKind::Events {
            self.delivery.narrow(&self.manager, &self.registration, &store, schema, &mut query)?
        } else {
            query.max_rows = Some(self.delivery.max_rows());
            Scope::Everything
        };
        let mut answer = Answer::new(schema, &query.wanted, LONGEST_ANSWER);
        let answered = table.generate(&store, &query, &mut answer)?;
        if answer.is_full()
            && let Scope::Batch { query } = &scope
        {
            // What does not fit would count as delivered.
            self.delivery.halve(&self.registration, query, schema.name)?;
            return Err(CallError::TooLong(schema.name));
        }
        if answered.cut || answer.is_full() {
            let rows = answer.rows();
            tracing::warn!(table = schema.name, rows, "an answer was cut to its newest rows");
            self.options.feed.complain(format!("an answer of {} was cut at {rows} rows: narrow the query by time", schema.name));
        }
        Ok(Reply::Rows(answer.finish()))
    }
}

/// What osquery is told of each table when we register.
pub(super) fn routes(tables: &[&'static dyn Table]) -> Routes {
    tables.iter().map(|table| (table.schema().name.to_owned(), route(table.schema()))).collect()
}

fn route(schema: &TableSchema) -> Vec<Strings> {
    let mut rows: Vec<_> = schema
        .columns
        .iter()
        .map(|column| {
            let op = column.op().to_string();
            strings([("id", "column"), ("name", column.name), ("type", column.kind.as_str()), ("op", &op)])
        })
        .collect();
    if schema.kind == TableKind::Events {
        rows.push(strings([("id", "attributes"), ("attributes", EVENT_BASED)]));
    }
    rows
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> Strings {
    BTreeMap::from(pairs.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())))
}
