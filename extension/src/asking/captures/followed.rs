//! The tables that are followed: what is known of each, how it fares, and its captures.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mayfly_history::{
    Feed, Nanos,
    captures::{Capture, Row, SOURCE},
    chain,
    feed::{Gap, cause},
    now,
    store::StoreError,
};
use mayfly_tables::{Followed, Table};

use super::{
    map::tellers,
    schedule::{Due, Failure, PATIENCE, Schedule},
};
use crate::{
    asking::Office,
    line::{Refusal, Up},
    manager::ManagerError,
};

/// How long osquery may take for one table.
const LONGEST: Duration = Duration::from_secs(30);
/// The most that the values of one capture may hold together, and that osquery may send for it with the names of columns in each row.
const MOST_BYTES: usize = 8 << 20;
const MOST_ON_THE_WIRE: usize = 4 * MOST_BYTES;

/// Why a table could not be captured.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error("cannot be captured")]
    Manager(#[from] ManagerError),
    #[error("has more than {most} rows, and is not captured; [history] max_rows allows more")]
    TooManyRows { most: usize },
    #[error("has {bytes} bytes of values, more than {MOST_BYTES}, and is not captured; take it out of [history] tables")]
    TooManyBytes { bytes: usize },
    #[error("its capture cannot be kept")]
    Store(#[from] StoreError),
}

/// A table that is followed, or was.
struct State {
    table: &'static Followed,
    feed: Feed,
    /// The registration that it was followed in.
    number: u64,
    /// The store knows the table as it is now.
    is_open: bool,
    /// It is captured, as far as anybody knows.
    is_running: bool,
    /// Nobody looked since the last capture.
    was_blind: bool,
    /// The first capture of this registration has been tried.
    is_tried: bool,
    /// When the oldest event happened that tells of it and that no capture has answered.
    told_ns: Option<Nanos>,
    /// The longest time from such an event until the capture.
    latest: Duration,
}

/// All of them.
pub(super) struct Tables {
    office: Office,
    /// How captures fare as a whole.
    feed: Feed,
    /// Not every table was looked at yet since osquery is there.
    is_blind: bool,
    number: Option<u64>,
    /// Captures wait for the budget.
    is_overdrawn: bool,
    states: BTreeMap<&'static str, State>,
    /// The tables of which the store had captures when it was opened.
    known: Vec<&'static Followed>,
}

impl Tables {
    pub(super) fn new(office: Office) -> Self {
        let feed = office.feeds().feed(SOURCE, "");
        let known = crate::sql::captured(office.state_dir());
        let mut tables = Self { office, feed, is_blind: true, number: None, is_overdrawn: false, states: BTreeMap::new(), known };
        tables.go_blind();
        tables
    }

    fn go_blind(&mut self) {
        self.is_blind = true;
        let cause = self.office.line().cause();
        self.feed.waiting(match cause {
            cause::REGISTERED_AGAIN => "osquery's tables came or went: registering again; nothing is captured until then",
            _ => "osquery is not there: nothing is captured until it is",
        });
        self.feed.blind_until_running(cause, "until the first captures after it");
    }

    /// Whether osquery can be asked.
    pub(super) fn is_up(&self) -> bool {
        self.number.is_some()
    }

    /// Takes notice of a registration that is another one, or is none any longer.
    pub(super) fn meet(&mut self, up: Option<Up>, schedule: &mut Schedule) {
        match up {
            None if self.number.take().is_some() => {
                self.states.values_mut().for_each(|state| state.was_blind = true);
                self.go_blind();
            }
            Some(up) if self.number != Some(up.number) => self.follow(&up, schedule),
            _ => {}
        }
    }

    fn follow(&mut self, up: &Up, schedule: &mut Schedule) {
        if self.number.is_some() {
            // Another registration came so soon that the end of the last one went unseen.
            self.go_blind();
        }
        self.number = Some(up.number);
        for &table in &up.followed {
            let name = leaked(table);
            let feed = self.office.feeds().feed(SOURCE, name);
            let state = self.states.entry(name).or_insert_with(|| State::new(table, feed));
            state.is_open &= std::ptr::eq(state.table, table);
            state.table = table;
            state.number = up.number;
            state.was_blind = true;
            state.is_tried = false;
            state.told_ns = None;
        }
        for (name, why) in &up.refused {
            self.refuse(name, why);
        }
        // What the store has, and nobody looks at any longer.
        let mut gone: BTreeSet<_> = self.known.iter().map(|table| leaked(table)).chain(self.states.keys().copied()).collect();
        gone.retain(|name| self.states.get(name).is_none_or(|state| state.number != up.number));
        for name in gone {
            let feed = self.office.feeds().feed(SOURCE, name);
            let is_named = up.refused.iter().any(|(refused, _)| refused == name);
            let why = if is_named { "osquery no longer has it" } else { "[history] tables no longer names it" };
            feed.waiting(format!("{why}; what was captured stays"));
            feed.blind_until_running(cause::NOT_FOLLOWED, why);
            if let Some(state) = self.states.get_mut(name) {
                state.is_running = false;
            }
        }
        schedule.follow(up.followed.iter().map(|table| leaked(table)), Instant::now());
        for (name, state) in &mut self.states {
            // Nobody waits for the first capture of one that is left alone.
            state.is_tried |= schedule.is_suspect(name);
        }
        self.see_again();
    }

    /// Says of a table that is not followed why.
    fn refuse(&self, name: &str, why: &Refusal) {
        let history = &self.office.config().history;
        match why {
            // Not every host has every table.
            Refusal::Absent if !history.names(name) => {}
            Refusal::Absent => self.office.feeds().feed(SOURCE, name).waiting(format!("{why}; followed as soon as it has")),
            Refusal::Native { .. } => {
                let feed = self.office.feeds().feed(SOURCE, name);
                feed.running();
                feed.hint(why.to_string());
            }
            Refusal::Unfit(_) => self.office.feeds().feed(SOURCE, name).disabled(why.to_string(), "take it out of [history] tables"),
        }
    }

    /// Something told of these tables that happened at `since_ns`.
    pub(super) fn told(&mut self, tables: &[&'static str], since_ns: Nanos) {
        for table in tables {
            if let Some(state) = self.states.get_mut(table) {
                state.told_ns = Some(state.told_ns.map_or(since_ns, |told| told.min(since_ns)));
            }
        }
    }

    /// Asks osquery for a table, and keeps what it has.
    pub(super) fn capture(&mut self, due: &Due, schedule: &mut Schedule) {
        let Some(state) = self.states.get_mut(due.table) else { return };
        let began = Instant::now();
        let captured = state.capture(&self.office, due);
        state.is_tried = true;
        let (at, cost) = (Instant::now(), began.elapsed());
        match captured {
            Ok(()) => {
                schedule.done(due.table, cost, at);
                state.saw(schedule);
            }
            Err(error) => {
                let failure = match error {
                    CaptureError::Manager(ManagerError::Unreachable { .. }) => Failure::Innocent,
                    CaptureError::Manager(ManagerError::Broken { .. }) => Failure::Broken,
                    // As many rows will be there soon as are now.
                    CaptureError::TooManyRows { .. } | CaptureError::TooManyBytes { .. } => {
                        Failure::Lasting { patience: self.office.config().history.interval() }
                    }
                    CaptureError::Manager(_) | CaptureError::Store(_) => Failure::Lasting { patience: PATIENCE },
                };
                let pause = schedule.failed(due.table, cost, failure, at);
                state.failed(&error, pause);
            }
        }
        let is_overdrawn = !schedule.overdrawn(at).is_zero();
        if std::mem::replace(&mut self.is_overdrawn, is_overdrawn) != is_overdrawn {
            self.states.values().filter(|state| state.is_running).for_each(|state| state.hint(schedule));
        }
        self.see_again();
    }

    /// Ends the blind time once every table was looked at.
    fn see_again(&mut self) {
        let mut followed = self.states.values().filter(|state| Some(state.number) == self.number);
        if self.is_blind && followed.all(|state| state.is_tried) {
            self.is_blind = false;
            self.feed.running();
        }
    }

    /// Nothing is captured from now on.
    pub(super) fn end(self) {
        for state in self.states.values() {
            state.feed.waiting("the extension has ended; what was captured stays");
        }
        self.feed.waiting("the extension has ended");
    }
}

/// The name of a table for as long as the process lives, which is how long it is known.
fn leaked(table: &'static Followed) -> &'static str {
    table.core().name.as_str()
}

/// In seconds, by steps: each change of a hint is written, and every capture takes a little more or less.
fn rounded(time: Duration) -> u64 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].into_iter().find(|step| *step >= seconds).unwrap_or(seconds)
}

impl State {
    fn new(table: &'static Followed, feed: Feed) -> Self {
        Self {
            table,
            feed,
            number: 0,
            is_open: false,
            is_running: false,
            was_blind: true,
            is_tried: false,
            told_ns: None,
            latest: Duration::ZERO,
        }
    }

    fn capture(&mut self, office: &Office, due: &Due) -> Result<(), CaptureError> {
        let most = usize::try_from(office.config().history.max_rows).unwrap_or(usize::MAX);
        // What happens from here on is answered by another capture.
        let told_ns = self.told_ns.take();
        let rows =
            office.line().manager(LONGEST).answering_at_most(MOST_ON_THE_WIRE).query(&self.table.capture_sql(most.saturating_add(1)))?;
        // osquery looked at some time since it was asked: a change must not be dated before it happened.
        let taken_ns = now();
        if rows.len() > most {
            return Err(CaptureError::TooManyRows { most });
        }
        let bytes = rows.iter().flat_map(|row| row.values()).map(String::len).sum();
        if bytes > MOST_BYTES {
            return Err(CaptureError::TooManyBytes { bytes });
        }
        let columns: Vec<_> = self.table.schema().stored().map(|column| column.name).collect();
        let row = |mut row: crate::manager::Row| -> Row { columns.iter().map(|name| row.remove(*name).unwrap_or_default()).collect() };
        let rows: Vec<Row> = rows.into_iter().map(row).collect();
        let evidence = match (due.told_by.is_empty(), self.was_blind) {
            (_, true) => "startup".to_owned(),
            (true, false) => "interval".to_owned(),
            (false, false) => due.told_by.iter().copied().collect::<Vec<_>>().join(","),
        };
        let mut captures = office.captures();
        if !self.is_open {
            captures.follow(self.table.schema(), self.table.identity(), self.table.passing())?;
            self.is_open = true;
        }
        let capture = Capture { rows: &rows, taken_ns, evidence: &evidence, was_blind: self.was_blind };
        let difference = captures.capture(self.table.schema().name, &capture)?;
        let (name, description) = self.table.note();
        if captures.put_note(&name, &description)? {
            // Of the time before nobody knows.
            captures.put_gap(&Gap {
                source: SOURCE.into(),
                endpoint: self.table.core().name.clone(),
                cause: cause::BEFORE_FIRST_RECORD.into(),
                from_ns: 0,
                to_ns: Some(taken_ns),
                recovered: 0,
                detail: "the table was not followed before".into(),
            })?;
        }
        drop(captures);
        self.was_blind = false;
        let late = told_ns.map_or(Duration::ZERO, |told| Duration::from_nanos(taken_ns.saturating_sub(told).max(0).unsigned_abs()));
        self.latest = self.latest.max(late);
        let late = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
        for _ in 0..difference.began + difference.ended {
            self.feed.count_received();
            self.feed.count_stored(taken_ns, late);
        }
        Ok(())
    }

    /// Says how well the table is followed.
    fn saw(&mut self, schedule: &mut Schedule) {
        if !self.is_running {
            self.is_running = true;
            self.feed.running();
        }
        self.hint(schedule);
    }

    fn hint(&self, schedule: &mut Schedule) {
        let name = leaked(self.table);
        let mut hint = format!("resolution: {:.0} s", schedule.resolution(name).as_secs_f64().ceil());
        if tellers(name).next().is_some() {
            let told = schedule.told_resolution(name).max(self.latest);
            let tellers = tellers(name).collect::<Vec<_>>().join(", ");
            hint.push_str(&format!("; {} s of what is told by {tellers}", rounded(told)));
        }
        if schedule.is_slow(name) {
            hint.push_str("; captured more rarely than configured, since it is slow");
        }
        let wait = schedule.overdrawn(Instant::now());
        if !wait.is_zero() {
            hint.push_str("; the budget is spent: the next captures wait");
        }
        self.feed.hint(hint);
    }

    fn failed(&mut self, error: &CaptureError, pause: Duration) {
        self.is_running = false;
        self.was_blind = true;
        let why = chain(error);
        tracing::warn!(table = self.table.core().name, error = why, "a table was not captured");
        self.feed.failed(why, format!("tried again in {} s; what was captured stays", pause.as_secs()));
        self.feed.blind_until_running(cause::CAPTURE_FAILED, "the table could not be captured");
    }
}
