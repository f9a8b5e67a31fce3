//! `mayfly diff`: what changed in a table between two instants.

mod compare;
mod instant;
mod print;

use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
};

use mayfly_history::{Cell, ColumnSpec, Nanos, TableKind, captures::SOURCE, feed::Gap, now, store::StoreError};
use mayfly_tables::{Constraint, Followed, Home, Op, Query, Rows, TABLES, Table, TableError};

pub use self::instant::NotAnInstant;
use self::{
    compare::{Change, Identity, Row, compare},
    instant::{parse, readable, spelt},
};
use crate::{
    output::Screen,
    query::nearest,
    sql::{Database, OpenError, captured},
};

/// How differences are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DiffFormat {
    /// A line for each: `-` went, `+` came, `~` changed.
    Lines,
    /// One object, with whole rows.
    Json,
}

/// What `mayfly diff` was asked.
#[derive(Clone, Debug)]
pub struct DiffArgs<'a> {
    /// osquery's name of the table, or that of its history.
    pub table: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub format: DiffFormat,
    pub state_dir: &'a Path,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no table {name} has a history here{hint}; there are: {known}")]
    NoTable { name: String, hint: String, known: String },
    #[error("{name} is a table of events, which do not hold: SELECT * FROM {name} WHERE time BETWEEN … AND …")]
    Events { name: &'static str },
    #[error("{which} {why}")]
    Instant { which: &'static str, why: NotAnInstant },
    #[error("FROM ({from}) is not before TO ({to}); the other way round it is: mayfly diff {table} {to} {from}")]
    Order { table: String, from: String, to: String },
    #[error("cannot read the history")]
    Read(#[from] TableError),
    #[error("cannot read the store")]
    Store(#[from] StoreError),
    #[error("cannot write the result")]
    Output(#[source] io::Error),
}

/// A question, worked out.
struct Asked<'t> {
    table: &'static str,
    from: Nanos,
    to: Nanos,
    /// The table's own columns.
    columns: Vec<&'t ColumnSpec>,
    identity: Identity,
    /// What makes the answer less than the truth.
    notes: Vec<String>,
}

/// Prints what changed. A reader that goes away (`| head`) ends it well.
pub fn run(args: &DiffArgs<'_>) -> Result<ExitCode, DiffError> {
    // As for a query: where nothing is recorded it says so.
    Database::open(args.state_dir)?;
    let (from, to) = instants(args)?;
    let (table, identity) = find(args)?;
    let schema = table.schema();
    let store = table.home().open(args.state_dir)?;
    let followed = (table.home() == Home::Captures).then(|| schema.name.trim_end_matches("_history"));
    let gaps = store.gaps()?;
    let notes = [("FROM", from), ("TO", to)].into_iter().filter_map(|(which, instant)| blind(which, instant, &gaps, followed)).collect();
    let columns: Vec<_> = schema.columns.iter().filter(|column| is_own(column)).collect();
    let asked = Asked { table: schema.name, from, to, columns, identity, notes };
    let rows = |instant| rows(table, &store, instant);
    let changes = compare(rows(from)?, rows(to)?, &asked.identity);
    write(&asked, &changes, args.format).or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(DiffError::Output(error)),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write(asked: &Asked<'_>, changes: &[Change], format: DiffFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == DiffFormat::Json {
        return print::json(asked, changes, &mut out);
    }
    let mut said = io::stderr().lock();
    asked.notes.iter().try_for_each(|note| writeln!(said, "note: {note}"))?;
    print::lines(asked, changes, Screen::stdout(), &mut out)?;
    if out.is_terminal() {
        let count = |which: fn(&Change) -> bool| changes.iter().filter(|change| which(change)).count();
        writeln!(
            said,
            "{}, {} to {}: {} added, {} removed, {} changed",
            asked.table,
            readable(asked.from),
            readable(asked.to),
            count(|change| matches!(change, Change::Added(_))),
            count(|change| matches!(change, Change::Removed(_))),
            count(|change| matches!(change, Change::Changed { .. })),
        )?;
    }
    Ok(())
}

fn instants(args: &DiffArgs<'_>) -> Result<(Nanos, Nanos), DiffError> {
    let now = now();
    let read = |which, text| parse(text, now).map_err(|why| DiffError::Instant { which, why });
    let (from, to) = (read("FROM", args.from)?, read("TO", args.to)?);
    if from >= to {
        return Err(DiffError::Order { table: args.table.into(), from: args.from.into(), to: args.to.into() });
    }
    Ok((from, to))
}

/// The history of that name, and what tells its rows apart.
fn find(args: &DiffArgs<'_>) -> Result<(&'static dyn Table, Identity), DiffError> {
    let captured = captured(args.state_dir);
    let is_meant = |name: &str| name == args.table || name.strip_suffix("_history") == Some(args.table);
    if let Some(followed) = captured.iter().find(|followed| is_meant(followed.schema().name)) {
        let followed: &'static Followed = followed;
        return Ok((followed, Identity { columns: followed.identity().to_vec(), passing: followed.passing().to_vec() }));
    }
    if let Some(&table) = TABLES.iter().find(|table| is_meant(table.schema().name) && table.schema().kind == TableKind::History) {
        return Ok((table, Identity::default()));
    }
    if let Some(table) = TABLES.iter().find(|table| table.schema().name == args.table && table.schema().kind == TableKind::Events) {
        return Err(DiffError::Events { name: table.schema().name });
    }
    let native = TABLES.iter().filter(|table| table.schema().kind == TableKind::History).map(|table| table.schema().name);
    let names: Vec<_> =
        native.chain(captured.iter().map(|followed| followed.schema().name)).map(|name| name.trim_end_matches("_history")).collect();
    let hint = match nearest(args.table, names.iter().copied()) {
        Some(near) => format!("; did you mean {near}?"),
        None if captured.is_empty() => "; osquery's tables have one where osqueryd runs the extension ([history] tables)".into(),
        None => "; osquery's tables have one if [history] tables names them".into(),
    };
    Err(DiffError::NoTable { name: args.table.into(), hint, known: names.join(", ") })
}

/// Whether a column is the table's own, not one of those that every history has.
fn is_own(column: &ColumnSpec) -> bool {
    column.stored || column.joined.is_some()
}

/// The own columns of what held at that instant.
fn rows(table: &dyn Table, store: &mayfly_history::store::Reader, instant: Nanos) -> Result<Vec<Row>, DiffError> {
    struct Taken<'t> {
        own: Vec<bool>,
        rows: Vec<Row>,
        spell: &'t dyn Fn(Cell<'_>) -> String,
    }
    impl Rows for Taken<'_> {
        fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
            self.rows.push(cells.iter().zip(&self.own).filter(|(_, own)| **own).map(|(cell, _)| (self.spell)(*cell)).collect());
            ControlFlow::Continue(())
        }
    }
    let schema = table.schema();
    let own: Vec<_> = schema.columns.iter().map(is_own).collect();
    let as_of = schema.position("as_of").map(|column| Constraint { column, op: Op::Equals, value: spelt(instant) });
    // The instant is needed, though nobody reads it.
    let wanted = schema.columns.iter().zip(&own).map(|(column, own)| *own || column.name == "as_of").collect();
    let query = Query { constraints: as_of.into_iter().collect(), wanted, ..Query::default() };
    let spell = |cell: Cell<'_>| match cell {
        Cell::Null => String::new(),
        Cell::Int(int) => int.to_string(),
        Cell::Text(text) => text.to_owned(),
    };
    let mut taken = Taken { own, rows: Vec::new(), spell: &spell };
    table.generate(store, &query, &mut taken)?;
    Ok(taken.rows)
}

/// What is to be said of an instant at which nobody looked.
fn blind(which: &str, instant: Nanos, gaps: &[Gap], followed: Option<&str>) -> Option<String> {
    let matters = |gap: &&Gap| {
        let of_table = followed.is_some_and(|table| gap.source == SOURCE && (gap.endpoint.is_empty() || gap.endpoint == table));
        let of_recorder = gap.source.is_empty() || (followed.is_none() && gap.source == "recorder");
        (of_table || of_recorder) && gap.from_ns <= instant && gap.to_ns.is_none_or(|to| instant < to)
    };
    let gap = gaps.iter().find(matters)?;
    let until = gap.to_ns.map_or_else(|| "lasts".to_owned(), |to| format!("ended {}", readable(to)));
    Some(format!(
        "{which} lies in a time in which nobody looked ({}, which {until}): what changed then may be missing, or dated late",
        gap.cause
    ))
}
