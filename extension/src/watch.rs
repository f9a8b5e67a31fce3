//! `mayfly watch`: events as they happen, read from the store as another process writes it.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
};

use mayfly_history::{Cell, Eid, TableKind, TableSchema, store::Reader};
use mayfly_tables::{Home, Query, Rows, TABLES, Table, TableError};

use crate::{
    commits::{Commits, Woken},
    output::escaped,
};

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("no event table {name}; there are: {known}")]
    NoTable { name: String, known: String },
    #[error("cannot watch {dir}")]
    Watch {
        dir: String,
        #[source]
        reason: io::Error,
    },
    #[error("cannot read the history")]
    Read(#[from] TableError),
    #[error("cannot open the history")]
    Open(#[from] mayfly_history::store::StoreError),
    #[error("cannot print")]
    Print(#[source] io::Error),
}

/// Follows the event tables of that name (all, if none is named) until interrupted.
pub fn run(names: &[String], json: bool, state_dir: &Path) -> Result<ExitCode, WatchError> {
    let tables = choose(names)?;
    let watch_error = |reason| WatchError::Watch { dir: state_dir.display().to_string(), reason };
    let mut commits = Commits::of(state_dir).map_err(watch_error)?;
    let terminal = io::stdout().is_terminal();
    let mut printer = Printer { json: json || !terminal, out: io::stdout().lock(), failed: None };
    let mut seen = BTreeMap::new();
    let mut reader = Reader::open(state_dir)?;
    for table in &tables {
        seen.insert(table.schema().name, reader.bounds(table.schema())?.map(|(newest, _)| newest));
    }
    if terminal {
        let _ = writeln!(io::stderr(), "watching {} (ctrl-c ends)", tables.iter().map(|t| t.schema().name).collect::<Vec<_>>().join(", "));
    }
    loop {
        if commits.wait(None).map_err(watch_error)? == Woken::Replaced {
            reader = Reader::open(state_dir)?;
        }
        for table in &tables {
            let after = seen.get(table.schema().name).copied().flatten();
            let newest = print_after(*table, &reader, after, &mut printer)?;
            if newest.is_some() {
                seen.insert(table.schema().name, newest);
            }
        }
        match printer.failed.take() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            Some(error) => return Err(WatchError::Print(error)),
            None => {}
        }
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static dyn Table>, WatchError> {
    let events: Vec<_> = TABLES.iter().copied().filter(|t| t.schema().kind == TableKind::Events && t.home() == Home::Recorder).collect();
    if names.is_empty() {
        return Ok(events);
    }
    let find = |name: &String| {
        let known = || events.iter().map(|t| t.schema().name).collect::<Vec<_>>().join(", ");
        events.iter().copied().find(|t| t.schema().name == name).ok_or_else(|| WatchError::NoTable { name: name.clone(), known: known() })
    };
    names.iter().map(find).collect()
}

/// Prints what a table has after `after`; gives its newest eid.
fn print_after(
    table: &'static dyn Table,
    reader: &Reader,
    after: Option<Eid>,
    printer: &mut Printer<impl Write>,
) -> Result<Option<Eid>, WatchError> {
    let Some((newest, _)) = reader.bounds(table.schema())? else { return Ok(None) };
    if after.is_some_and(|after| after >= newest) {
        return Ok(None);
    }
    let query = Query { after, upto: Some(newest), ..Query::default() };
    table.generate(reader, &query, &mut Lines { schema: table.schema(), printer })?;
    Ok(Some(newest))
}

struct Printer<W> {
    json: bool,
    out: W,
    failed: Option<io::Error>,
}

struct Lines<'p, W> {
    schema: &'static TableSchema,
    printer: &'p mut Printer<W>,
}

impl<W: Write> Rows for Lines<'_, W> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let columns = self.schema.columns.iter().zip(cells);
        let line = if self.printer.json {
            let fields = columns.filter(|(c, _)| !c.hidden || c.name == "eid").map(|(c, cell)| (c.name, json(*cell)));
            let mut object: serde_json::Map<String, serde_json::Value> = fields.map(|(name, v)| (name.to_owned(), v)).collect();
            object.insert("table".into(), self.schema.name.into());
            serde_json::Value::Object(object).to_string()
        } else {
            readable(columns)
        };
        match writeln!(self.printer.out, "{line}").and_then(|()| self.printer.out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.printer.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

/// One line for a person: the clock, what happened, then what is known, without what is long.
fn readable<'c>(columns: impl Iterator<Item = (&'c mayfly_history::ColumnSpec, &'c Cell<'c>)>) -> String {
    const LONG: [&str; 8] = ["labels", "mounts", "ports", "time", "image_id", "image_digest", "cgroup_path", "mac_addresses"];
    let mut clock = String::new();
    let mut action = String::new();
    let mut rest = String::new();
    for (column, cell) in columns {
        let text = match cell {
            Cell::Null | Cell::Text("") => continue,
            Cell::Int(n) => n.to_string(),
            Cell::Text(text) => escaped(text).into_owned(),
        };
        match column.name {
            "time_ns" => clock = jiff::Timestamp::from_nanosecond(text.parse().unwrap_or(0)).map(|t| format!("{t:.3}")).unwrap_or_default(),
            "action" => action = text,
            "container_id" => rest.push_str(&format!(" id={text:.12}")),
            name if column.hidden || LONG.contains(&name) => {}
            name => rest.push_str(&format!(" {name}={text}")),
        }
    }
    format!("{clock} \u{1b}[1m{action:<14}\u{1b}[0m{rest}")
}

fn json(cell: Cell<'_>) -> serde_json::Value {
    match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Int(n) => n.into(),
        Cell::Text(text) => text.into(),
    }
}
