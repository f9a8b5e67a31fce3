//! Reads the events of the tables that triggers are on, as the recorder writes them, and orders what they ask for.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use mayfly_history::{Cell, Eid, Feed, Nanos, chain, now, store::Reader};
use mayfly_tables::{Constraint, Home, Op, Query, Rows, Table, TableError};

use super::{
    condition::Conditions,
    config::Trigger,
    gate::{Gate, Shed},
    queue::{Order, Pushed, Queue},
};
use crate::{asking::Office, commits::Commits};

/// Events that are read at once.
const CHUNK: usize = 512;
/// An event that happened longer ago fires nothing: what a query finds now says little about it.
const TOO_OLD: Nanos = 300_000_000_000;
/// The longest SQL that osquery is asked.
const LONGEST_SQL: usize = 512 << 10;
/// How often it is written how far events were considered, and how long before a store that cannot be read is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the answers to what is being asked may take when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Positions of the columns of every event.
const TIME_NS: usize = 1;
const EID: usize = 2;

/// One event table, and the triggers on it.
pub(super) struct Watched {
    table: &'static dyn Table,
    conditions: Conditions,
    /// Places of the triggers, and what they did lately.
    gates: Vec<(usize, Gate)>,
    wanted: Vec<bool>,
    /// Events up to this one were considered.
    after: Option<Eid>,
    /// As it is written.
    kept: Option<Eid>,
}

impl Watched {
    /// Prepares for the triggers on `table`.
    pub(super) fn new(table: &'static dyn Table, triggers: &[(Trigger, Feed)]) -> rusqlite::Result<Self> {
        let schema = table.schema();
        let mut conditions = Conditions::over(schema)?;
        let mut read = BTreeSet::from([TIME_NS, EID]);
        let mut gates = Vec::new();
        for (place, (trigger, _)) in triggers.iter().enumerate().filter(|(_, (trigger, _))| trigger.table.schema().name == schema.name) {
            conditions.prepare(&trigger.when)?;
            read.extend(&trigger.reads);
            gates.push((place, Gate::default()));
        }
        let wanted = (0..schema.columns.len()).map(|at| read.contains(&at)).collect();
        Ok(Self { table, conditions, gates, wanted, after: None, kept: None })
    }

    pub(super) fn is_on(&self, table: &'static dyn Table) -> bool {
        self.table.schema().name == table.schema().name
    }

    fn stream(&self) -> String {
        format!("triggers {}", self.table.schema().name)
    }

    /// Where the one before ended; else with the events that are not too old.
    fn resume(&mut self, office: &Office, reader: &Reader) -> Result<(), TableError> {
        self.kept = office.captures().cursor(&self.stream())?.and_then(|text| text.parse().ok());
        self.after = self.kept;
        if self.after.is_none() {
            let constraint = Constraint { column: TIME_NS, op: Op::GreaterThanOrEquals, value: (now() - TOO_OLD).to_string() };
            let wanted = (0..self.wanted.len()).map(|at| at == EID).collect();
            let mut first = First(None);
            self.table.generate(reader, &Query { constraints: vec![constraint], wanted, ..Query::default() }, &mut first)?;
            let newest = reader.bounds(self.table.schema())?.map(|(newest, _)| newest);
            self.after = first.0.map(before).or(newest);
        }
        Ok(())
    }

    /// Considers what is new.
    fn consider(&mut self, reader: &Reader, queue: &Queue, triggers: &[(Trigger, Feed)]) -> Result<(), TableError> {
        while let Some(upto) = reader.nth_after(self.table.schema(), self.after, CHUNK)? {
            let query = Query { after: self.after, upto: Some(upto), wanted: self.wanted.clone(), ..Query::default() };
            let mut judge =
                Judge { table: self.table, conditions: &self.conditions, gates: &mut self.gates, queue, triggers, at: Instant::now() };
            self.table.generate(reader, &query, &mut judge)?;
            self.after = Some(upto);
        }
        Ok(())
    }

    /// Writes how far the events are done with: considered, and what they asked for answered.
    fn keep(&mut self, office: &Office, queue: &Queue) -> Result<(), TableError> {
        let done = queue.oldest(self.table.schema().name).map(before).or(self.after);
        if done != self.kept
            && let Some(eid) = done
        {
            office.captures().set_cursor(&self.stream(), &eid.to_string())?;
            self.kept = done;
        }
        Ok(())
    }
}

/// The event before, as far as a position is meant.
fn before(eid: Eid) -> Eid {
    Eid { sequence: eid.sequence.saturating_sub(1), ..eid }
}

/// The id of the first event of an answer.
struct First(Option<Eid>);

impl Rows for First {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        self.0 = eid(cells);
        ControlFlow::Break(())
    }
}

fn eid(cells: &[Cell<'_>]) -> Option<Eid> {
    match cells.get(EID) {
        Some(Cell::Text(text)) => text.parse().ok(),
        _ => None,
    }
}

/// Judges each event by every trigger of its table.
struct Judge<'j> {
    table: &'static dyn Table,
    conditions: &'j Conditions,
    gates: &'j mut Vec<(usize, Gate)>,
    queue: &'j Queue,
    triggers: &'j [(Trigger, Feed)],
    at: Instant,
}

impl Rows for Judge<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let (Some(event), Some(Cell::Int(time_ns))) = (eid(cells), cells.get(TIME_NS).copied()) else { return ControlFlow::Continue(()) };
        let held = self.conditions.hold(cells);
        for (place, gate) in self.gates.iter_mut() {
            let Some((trigger, feed)) = self.triggers.get(*place) else { continue };
            match held.as_ref().map_err(ToString::to_string).and_then(|()| self.conditions.is_met(&trigger.when).map_err(|e| e.to_string()))
            {
                Ok(false) => continue,
                Ok(true) if time_ns < now() - TOO_OLD => {
                    feed.reject("skipped: when events were considered, some were older than 5 minutes");
                    continue;
                }
                Ok(true) => {}
                Err(error) => {
                    feed.reject(format!("`when`: {error}"));
                    continue;
                }
            }
            let values = trigger.per.iter().map(|at| cells.get(*at).copied().unwrap_or_default());
            match gate.pass(trigger.cooldown, trigger.max_per_minute, values, self.at) {
                Ok(()) => {}
                Err(Shed::Cooldown) => {
                    feed.count_received();
                    feed.count_rejected();
                    continue;
                }
                Err(Shed::MaxPerMinute) => {
                    feed.reject("shed: `max_per_minute` was reached");
                    continue;
                }
            }
            for template in &trigger.run {
                let sql = template.fill(cells);
                if sql.len() > LONGEST_SQL {
                    feed.reject(format!("`run` with its parameters is longer than {LONGEST_SQL} bytes"));
                    continue;
                }
                feed.count_received();
                let table = self.table.schema().name;
                let order = Order { trigger: *place, table, sql, event, time_ns, oldest: event, events: 1 };
                let Pushed::Evicted(oldest) = self.queue.push(order) else { continue };
                for oldest in oldest {
                    let Some((_, feed)) = self.triggers.get(oldest.trigger) else { continue };
                    (0..oldest.events).for_each(|_| feed.count_evicted());
                    feed.complain("more queries waited than there is room for: the oldest were dropped");
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Reads what is written, until the process ends; then nobody takes orders any longer, and those that were taken are waited for.
pub(super) fn work(office: &Office, commits: &mut Commits, watched: &mut [Watched], queue: &Queue, triggers: &Arc<[(Trigger, Feed)]>) {
    let mut reader = None;
    let mut keep_at = None;
    while !office.line().is_hung_up() {
        let done = consider(office, &mut reader, watched, queue, triggers);
        office.feeds().wake();
        let mut deadline = None;
        if let Err(error) = done {
            triggers.iter().for_each(|(_, feed)| feed.failed(chain(&error), "tried again"));
            reader = None;
            deadline = Some(Instant::now() + PAUSE);
        } else if keep_at.is_none_or(|at| at <= Instant::now()) {
            keep(office, watched, queue);
            keep_at = Some(Instant::now() + PAUSE);
        }
        let is_behind = watched.iter().any(|watched| watched.kept != watched.after);
        let deadline = deadline.or(keep_at.filter(|_| is_behind));
        if let Err(error) = commits.wait(deadline) {
            tracing::error!(%error, "cannot be told of new events; looking each second");
            office.line().wait_for_end(Instant::now() + PAUSE);
        }
    }
    queue.close();
    keep(office, watched, queue);
    // What is being asked is not to be asked again after a restart.
    let until = Instant::now() + LAST_ANSWERS;
    loop {
        let is_over = !queue.wait_for_answer(until);
        keep(office, watched, queue);
        if is_over {
            break;
        }
    }
}

fn consider(
    office: &Office,
    reader: &mut Option<Reader>,
    watched: &mut [Watched],
    queue: &Queue,
    triggers: &[(Trigger, Feed)],
) -> Result<(), TableError> {
    let begins = reader.is_none();
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(Home::Recorder.open(office.state_dir())?),
    };
    for watched in watched {
        if begins && watched.after.is_none() {
            watched.resume(office, reader)?;
        }
        watched.consider(reader, queue, triggers)?;
    }
    if begins {
        triggers.iter().for_each(|(_, feed)| feed.running());
    }
    Ok(())
}

fn keep(office: &Office, watched: &mut [Watched], queue: &Queue) {
    for watched in watched {
        if let Err(error) = watched.keep(office, queue) {
            tracing::warn!(error = chain(&error), table = watched.table.schema().name, "cannot write how far events were considered");
        }
    }
}
