//! Delivery of events to osquery's scheduled queries: each event at least once per query, repeats only after a crash.
//!
//! osquery logs every row that an event table returns, so a table must return each event once per scheduled query. What a
//! run gets is decided by [`decide`](mod@decide) and kept in `delivery.db` before the first row leaves us.

mod account;
mod book;
mod config;
mod consumer;
mod decide;
mod pushed;
mod run;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mayfly_history::{
    TableSchema, chain, now,
    store::{Reader as Store, StoreError},
};
use mayfly_tables::{Op, Query};

pub(crate) use account::show_account;
pub use book::BookError;
pub use config::DeliveryConfig;
pub use decide::Start;
pub(crate) use pushed::{Due, Outbox};
pub use run::{Running, Schedule};

use crate::manager::ManagerError;
use book::{Book, Consumer, Key};
use consumer::Reader;
use decide::{Log, OFFERS, Rules, Verdict, decide, expired};
use run::StoreLog;

/// Why a query of an event table cannot be answered. osquery logs the failure, takes no rows, and asks again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    #[error("cannot keep what was delivered")]
    Book(#[from] BookError),
    #[error("cannot ask osquery which query runs")]
    Osquery(#[from] ManagerError),
    #[error("cannot read the store")]
    Store(#[from] StoreError),
    /// The value of `consumer` has no meaning: says which forms have.
    #[error("{0}")]
    Consumer(String),
}

/// Our standing with one osquery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// osquery's `instance_id`: the id of its database, in which the counters are.
    pub instance: String,
    /// Unlike that of every other registration.
    pub token: String,
}

/// What the answer of an event table is cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All events, no cursor.
    Everything,
    /// The batch of this scheduled query's run.
    Batch { query: String },
    /// What a consumer has not acknowledged.
    Consumer,
}

/// Decides what queries of event tables get, and remembers it.
#[derive(Debug)]
pub struct Delivery {
    dir: PathBuf,
    config: DeliveryConfig,
    /// Opened when first needed, and again after it failed: a full or read-only disk may pass.
    book: Mutex<Option<Book>>,
}

impl Delivery {
    /// Delivery that is remembered in `dir`.
    pub fn new(dir: &Path, config: DeliveryConfig) -> Self {
        Self { dir: dir.to_owned(), config, book: Mutex::new(None) }
    }

    /// Most rows of one answer.
    pub fn max_rows(&self) -> usize {
        usize::try_from(self.config.max_rows).unwrap_or(usize::MAX)
    }

    /// Narrows `query` of an event table to what its asker is due.
    pub fn narrow(
        &self,
        osquery: &impl Schedule,
        registration: &Registration,
        store: &Store,
        schema: &TableSchema,
        query: &mut Query,
    ) -> Result<Scope, DeliveryError> {
        let log = StoreLog::new(store, schema);
        match named_reader(schema, query)?.as_deref().map(consumer::parse).transpose().map_err(DeliveryError::Consumer)? {
            Some(Reader::Everything) => {}
            Some(Reader::Named { name, acknowledges }) => {
                (query.after, query.upto) = self.unacknowledged(name, acknowledges, schema.name, &log)?;
                query.max_rows = None;
                return Ok(Scope::Consumer);
            }
            None => {
                if let Some(running) = osquery.running()? {
                    let run =
                        decide::Run { registration: registration.token.clone(), timestamp: running.timestamp, counter: running.counter };
                    let key = Key { instance: &registration.instance, query: &running.query, table: schema.name };
                    (query.after, query.upto) = self.batch(key, run, &log)?;
                    query.max_rows = None;
                    return Ok(Scope::Batch { query: running.query });
                }
            }
        }
        query.max_rows = Some(self.max_rows());
        Ok(Scope::Everything)
    }

    fn batch<L>(&self, key: Key<'_>, run: decide::Run, log: &L) -> Result<Bounds, DeliveryError>
    where
        L: Log,
        DeliveryError: From<L::Error>,
    {
        self.write(|page| {
            let last = page.cursor(key)?;
            let rules = Rules { start: self.config.start, max_rows: self.config.max_rows };
            let decision = decide(last.as_ref(), run, rules, now(), log)?;
            let bounds = bounds(decision.cursor.after, decision.cursor.upto);
            if decision.verdict == Verdict::Same {
                return Ok(bounds);
            }
            if let Some(lost) = decision.expired {
                tracing::warn!(query = key.query, table = key.table, ?lost, "events expired before they were delivered");
                page.add_gap(key.table, key.query, lost.from_ns, lost.to_ns)?;
            }
            if decision.verdict == Verdict::GivenUp {
                // Usual for a query whose WHERE rarely matches: counted with the cursor, and shown in `recorder_sources`.
                tracing::debug!(
                    query = key.query,
                    table = key.table,
                    given_up = decision.cursor.given_up,
                    "moved on: osquery took no row in {OFFERS} runs; does the query fail, or its WHERE match nothing?"
                );
            }
            page.keep_cursor(key, &decision.cursor)?;
            Ok(bounds)
        })
    }

    /// The answer to this run's query would have grown too long, and the run fails: the next is offered half as many events.
    pub fn halve(&self, registration: &Registration, query: &str, table: &str) -> Result<(), DeliveryError> {
        let key = Key { instance: &registration.instance, query, table };
        self.write(|page| {
            let Some(mut cursor) = page.cursor(key)? else { return Ok(()) };
            cursor.cap = (cursor.cap / 2).max(1);
            // It was not the query's fault.
            cursor.offers = 0;
            Ok(page.keep_cursor(key, &cursor)?)
        })
    }

    fn unacknowledged<L>(
        &self,
        name: &str,
        acknowledges: Option<mayfly_history::Eid>,
        table: &str,
        log: &L,
    ) -> Result<Bounds, DeliveryError>
    where
        L: Log,
        DeliveryError: From<L::Error>,
    {
        let newest = log.newest()?;
        self.write(|page| {
            let known = page.consumer(name, table)?;
            let mut acknowledged = match (known, self.config.start) {
                (Some(known), _) => known.acknowledged,
                (None, Start::Oldest) => None,
                (None, Start::Now) => newest,
            };
            if acknowledges > acknowledged {
                if acknowledges > newest {
                    let newest = newest.map_or_else(|| "none yet".to_owned(), |e| e.to_string());
                    return Err(DeliveryError::Consumer(format!(
                        "consumer '{name}' acknowledges an event that was not recorded; the newest is {newest}"
                    )));
                }
                acknowledged = acknowledges;
            } else if newest.is_some() && acknowledged > newest {
                // Another store was put there; its events are news.
                acknowledged = None;
            }
            if let Some(known) = known
                && let Some(lost) = expired(acknowledged.max(known.told_upto), None, known.looked_ns, log)?
            {
                tracing::warn!(consumer = name, table, ?lost, "events expired before they were read");
                page.add_gap(table, name, lost.from_ns, lost.to_ns)?;
            }
            let consumer = Consumer { acknowledged, told_upto: log.dropped()?, looked_ns: now() };
            page.keep_consumer(name, table, consumer)?;
            Ok(bounds(acknowledged, log.nth_after(acknowledged, self.config.max_rows)?.or(acknowledged)))
        })
    }

    fn write<T>(&self, work: impl FnOnce(&book::Page<'_>) -> Result<T, DeliveryError>) -> Result<T, DeliveryError> {
        self.with_book(|book| book.write(work))
    }

    fn with_book<T>(&self, work: impl FnOnce(&mut Book) -> Result<T, DeliveryError>) -> Result<T, DeliveryError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match book.take() {
            Some(open) => open,
            None => Book::open(&self.dir)?,
        };
        let done = work(book.insert(open));
        if let Err(DeliveryError::Book(error)) = &done {
            tracing::error!(error = chain(error), "the delivery book failed; opening it anew");
            *book = None;
        }
        done
    }
}

type Bounds = (Option<mayfly_history::Eid>, Option<mayfly_history::Eid>);

/// An empty range must stay empty: without an upper bound it would be everything.
fn bounds(after: Option<mayfly_history::Eid>, upto: Option<mayfly_history::Eid>) -> Bounds {
    (after, Some(upto.unwrap_or_default()))
}

/// The value that the query asks of `consumer`.
fn named_reader(schema: &TableSchema, query: &Query) -> Result<Option<String>, DeliveryError> {
    let Some(column) = schema.position("consumer") else { return Ok(None) };
    let mut values = query.constraints.iter().filter(|c| c.column == column && c.op == Op::Equals).map(|c| &c.value);
    let first = values.next();
    match values.find(|other| Some(*other) != first) {
        Some(_) => Err(DeliveryError::Consumer("one consumer at a time: consumer = 'NAME'".into())),
        None => Ok(first.cloned()),
    }
}
