//! The facts of one history that hold now, and what is written when they change.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    batch::Written,
    lane::{Desk, kept_name},
    logs::TableId,
};
use crate::{
    fact::{Change, Fact},
    table::HistoryTable,
    time::Nanos,
};

/// Most facts of one history that hold at once.
const MOST: usize = 65_536;

/// The history has as many facts as it may; the newcomer is left out.
#[derive(Debug, thiserror::Error)]
#[error("{table} holds {MOST} facts already: one about {key} is left out")]
pub(super) struct Full {
    table: &'static str,
    key: String,
}

/// A fact that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open<S> {
    fact: S,
    from_ns: Nanos,
    evidence: BTreeSet<String>,
}

type Name = (String, String);

/// Keeps the present facts of a history, and writes the intervals that follow from how they change.
#[derive(Debug)]
pub(super) struct Timeline<S: 'static> {
    table: TableId,
    declaration: &'static HistoryTable<S>,
    open: BTreeMap<Name, Open<S>>,
}

impl<S: Fact> Timeline<S> {
    pub(super) fn new(table: TableId, declaration: &'static HistoryTable<S>) -> Self {
        Self { table, declaration, open: BTreeMap::new() }
    }

    /// What holds of a key in a scope.
    #[cfg(test)]
    pub(super) fn now(&self, key: &str, scope: &str) -> Option<&S> {
        self.open.get(&(key.to_owned(), scope.to_owned())).map(|open| &open.fact)
    }

    pub(super) fn take(&mut self, change: Change<S>, desk: &mut Desk<'_>) -> Result<(), Full> {
        match change {
            Change::Holds { fact, at_ns, evidence } => self.hold(fact, at_ns, "changed", evidence, desk),
            Change::Ended { key, scope, at_ns, reason, evidence } => {
                self.end(&(key, scope), at_ns, reason, Some(evidence), desk);
                Ok(())
            }
            Change::Present { group, facts, taken_ns, blind_since, evidence } => {
                let (removed, changed) = if blind_since.is_some() { ("unknown", "unknown") } else { ("removed", "changed") };
                let present: HashSet<Name> = facts.iter().map(name).collect();
                let gone: Vec<Name> = self
                    .open
                    .iter()
                    .filter(|(n, open)| open.fact.group() == group && !present.contains(*n))
                    .map(|(n, _)| n.clone())
                    .collect();
                for name in gone {
                    self.end(&name, taken_ns, removed, None, desk);
                }
                facts.into_iter().map(|fact| self.hold(fact, taken_ns, changed, evidence, desk)).fold(Ok(()), Result::and)
            }
        }
    }

    fn hold(&mut self, mut fact: S, at_ns: Nanos, reason: &'static str, evidence: &'static str, desk: &mut Desk<'_>) -> Result<(), Full> {
        fact.clean(desk.redaction);
        let name = name(&fact);
        match self.open.get_mut(&name) {
            Some(open) if open.fact == fact => {
                // A list that finds again what an event told is no new witness.
                if evidence == STARTUP || !open.evidence.insert(evidence.to_owned()) {
                    return Ok(());
                }
            }
            Some(open) => {
                let at_ns = at_ns.max(open.from_ns);
                self.end(&name, at_ns, reason, None, desk);
                self.begin(&name, fact, at_ns, evidence);
            }
            None => {
                if self.open.len() >= MOST {
                    return Err(Full { table: self.declaration.name, key: name.0 });
                }
                self.begin(&name, fact, at_ns, evidence);
            }
        }
        self.write(&name, None, desk);
        Ok(())
    }

    fn begin(&mut self, name: &Name, fact: S, from_ns: Nanos, evidence: &'static str) {
        self.open.insert(name.clone(), Open { fact, from_ns, evidence: BTreeSet::from([evidence.to_owned()]) });
    }

    fn end(&mut self, name: &Name, at_ns: Nanos, reason: &'static str, evidence: Option<&'static str>, desk: &mut Desk<'_>) {
        if let Some(open) = self.open.get_mut(name) {
            open.evidence.extend(evidence.map(str::to_owned));
            self.write(name, Some((at_ns, reason)), desk);
            self.open.remove(name);
        }
    }

    /// Puts an interval into the batch, with what the next recorder has to know of it.
    fn write(&self, name: &Name, ended: Option<(Nanos, &'static str)>, desk: &mut Desk<'_>) {
        let Some(open) = self.open.get(name) else { return };
        let evidence: Vec<&str> = open.evidence.iter().map(String::as_str).collect();
        let written = Written {
            key: name.0.clone(),
            scope: name.1.clone(),
            from_ns: open.from_ns,
            to_ns: ended.map(|(at_ns, _)| at_ns.max(open.from_ns)),
            ended_reason: ended.map_or("", |(_, reason)| reason),
            evidence: evidence.join(","),
            fact: &open.fact,
        };
        desk.batch.add_interval(self.table, self.declaration.columns, written);
        let kept = if ended.is_some() { None } else { serde_json::to_vec(open).ok() };
        desk.batch.keep(kept_name(self.declaration.name, &format!("{}\u{1f}{}", name.0, name.1)), kept);
    }

    /// Takes up a fact that the recorder before this one kept.
    pub(super) fn restore(&mut self, value: &[u8]) -> Result<(), serde_json::Error> {
        let open: Open<S> = serde_json::from_slice(value)?;
        self.open.insert(name(&open.fact), open);
        Ok(())
    }

    /// What holds goes into the store once more.
    pub(super) fn write_anew(&self, desk: &mut Desk<'_>) {
        for name in self.open.keys() {
            self.write(name, None, desk);
        }
    }
}

/// Evidence of what was there when recording began.
const STARTUP: &str = "startup";

fn name<S: Fact>(fact: &S) -> Name {
    (fact.key().into_owned(), fact.scope().into_owned())
}

#[cfg(test)]
mod tests;
