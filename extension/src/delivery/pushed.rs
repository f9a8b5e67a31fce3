//! What pushing has yet to deliver: the store is the spool, and how far osquery's logger took it is kept in `delivery.db`.

use std::collections::BTreeMap;

use mayfly_history::{Eid, TableSchema, now, store::Reader as Store};

use super::{
    Delivery, DeliveryError,
    book::Pushed,
    decide::{Log, Start, expired},
    run::StoreLog,
};

/// Who the gaps of what was never pushed name.
const READER: &str = "osquery's logger";

/// What a table has for osquery's logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) after: Option<Eid>,
    pub(crate) upto: Eid,
    /// There is more behind `upto`.
    pub(crate) cut: bool,
    /// The number of the batch, from 1 on.
    pub(crate) batch: i64,
    /// The newest event that retention had dropped.
    pub(crate) dropped: Option<Eid>,
}

/// How far each table of one store was pushed. There is one for each table: nobody else moves it.
#[derive(Debug)]
pub(crate) struct Outbox<'d> {
    delivery: &'d Delivery,
    pushed: BTreeMap<&'static str, Pushed>,
}

impl<'d> Outbox<'d> {
    pub(crate) fn new(delivery: &'d Delivery) -> Self {
        Self { delivery, pushed: BTreeMap::new() }
    }

    /// What of a table is due, at most so many events; `None`: nothing. What retention dropped before it was due becomes a gap.
    pub(crate) fn due(&mut self, store: &Store, schema: &'static TableSchema, most: u32) -> Result<Option<Due>, DeliveryError> {
        let log = StoreLog::new(store, schema);
        let (newest, dropped) = (log.newest()?, log.dropped()?);
        let mut pushed = match self.pushed.get(schema.name) {
            Some(pushed) => *pushed,
            None => self.begin(schema.name, &log)?,
        };
        if newest.is_some() && pushed.acknowledged > newest {
            // Another store was put there; its events are news.
            pushed.acknowledged = None;
        }
        let told = pushed.acknowledged.max(pushed.told_upto);
        if dropped > told
            && let Some(lost) = expired(told, None, pushed.looked_ns, &log)?
        {
            tracing::warn!(table = schema.name, ?lost, "events expired before they were pushed");
            pushed.told_upto = dropped;
            self.delivery.write(|page| {
                page.add_gap(schema.name, READER, lost.from_ns, lost.to_ns)?;
                Ok(page.keep_pushed(schema.name, &pushed)?)
            })?;
        }
        pushed.looked_ns = now();
        self.pushed.insert(schema.name, pushed);
        let Some(newest) = newest.filter(|newest| Some(*newest) > pushed.acknowledged) else { return Ok(None) };
        let upto = log.nth_after(pushed.acknowledged, most)?;
        Ok(upto.map(|upto| Due { after: pushed.acknowledged, upto, cut: upto < newest, batch: pushed.batches + 1, dropped }))
    }

    fn begin(&self, table: &str, log: &StoreLog<'_>) -> Result<Pushed, DeliveryError> {
        let newest = log.newest()?;
        let dropped = log.dropped()?;
        self.delivery.write(|page| {
            if let Some(known) = page.pushed(table)? {
                return Ok(known);
            }
            let acknowledged = match self.delivery.config.start {
                Start::Oldest => None,
                Start::Now => newest,
            };
            let pushed = Pushed { acknowledged, told_upto: dropped, batches: 0, looked_ns: now() };
            page.keep_pushed(table, &pushed)?;
            Ok(pushed)
        })
    }

    /// osquery's logger took these tables up to these events.
    pub(crate) fn settle(&mut self, taken: &BTreeMap<&'static str, Eid>) -> Result<(), DeliveryError> {
        let mut settled = Vec::new();
        for (&table, &upto) in taken {
            let pushed = self.pushed.get(table).copied().unwrap_or_default();
            settled.push((table, Pushed { acknowledged: Some(upto), batches: pushed.batches + 1, ..pushed }));
        }
        // Even where it cannot be written, this process does not push it again.
        self.pushed.extend(settled.iter().copied());
        self.delivery.write(|page| Ok(settled.iter().try_for_each(|(table, pushed)| page.keep_pushed(table, pushed))?))
    }
}
