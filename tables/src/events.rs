//! Answers for all event tables.

use std::{fmt::Write, ops::ControlFlow, sync::OnceLock};

use mayfly_history::{
    Cell, Eid, EventTable, Record, Role, TableSchema,
    recorder::Declarations,
    store::{EventScan, Reader},
};

use crate::{
    bounds::{Bounds, Unit},
    parameter,
    query::{Answered, Home, Query, Rows, Table, TableError},
    who::Who,
};

/// Positions of the columns E, which every event table begins with.
const TIME: usize = 0;
const TIME_NS: usize = 1;
const EID: usize = 2;

/// An event table that can be asked.
#[expect(missing_debug_implementations, reason = "a declaration is made of functions")]
pub struct Events<E: 'static> {
    declaration: &'static EventTable<E>,
    schema: OnceLock<TableSchema>,
    declare: Option<fn(&mut Declarations, &'static EventTable<E>)>,
    home: Home,
}

impl<E> Events<E> {
    /// A table whose rows a reducer of the recorder writes.
    pub const fn of(declaration: &'static EventTable<E>) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: None, home: Home::Recorder }
    }

    /// A table whose rows the extension writes.
    pub const fn captured(declaration: &'static EventTable<E>) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: None, home: Home::Captures }
    }
}

impl<E: Record> Events<E> {
    /// A table whose rows are the records that sources push.
    pub const fn pushed(declaration: &'static EventTable<E>) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: Some(Declarations::add_events::<E>), home: Home::Recorder }
    }
}

impl<E> Table for Events<E> {
    fn schema(&self) -> &TableSchema {
        self.schema.get_or_init(|| self.declaration.schema())
    }

    fn home(&self) -> Home {
        self.home
    }

    fn declare(&self, declarations: &mut Declarations) {
        if let Some(declare) = self.declare {
            declare(declarations, self.declaration);
        }
    }

    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError> {
        let schema = self.schema();
        let consumer = match parameter::values(schema, "consumer", query)?[..] {
            [] => Cell::Null,
            [one] => Cell::Text(one),
            _ => return Err(TableError::Parameter(format!("{}.consumer takes one value at a time", schema.name))),
        };
        let mut eid = String::new();
        let mut scan = scan(schema, query);
        let mut who = Who::new(schema, query, store, &mut scan.wanted);
        let mut failed = None;
        let scanned = store.events(schema, &scan, &mut |event| {
            if query.wants(EID) {
                eid.clear();
                // Writing to a String does not fail.
                let _ = write!(eid, "{}", event.eid);
            }
            let seconds = event.time_ns.div_euclid(Unit::Second as i64);
            let mut row = Vec::with_capacity(schema.columns.len());
            row.extend([Cell::Int(seconds), Cell::Int(event.time_ns), Cell::Text(&eid), consumer]);
            match &mut who {
                None => row.extend_from_slice(event.cells),
                Some(who) => {
                    if let Err(error) = who.fill(&mut row, event.cells, event.time_ns) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            rows.row(&row)
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(Answered { rows: scanned.rows, cut: scanned.cut })
    }
}

/// The part of the store that can hold what `query` asks for.
fn scan(schema: &TableSchema, query: &Query) -> EventScan {
    let time = Bounds::of(query.on(TIME), Unit::Second).both(Bounds::of(query.on(TIME_NS), Unit::Nano));
    let (after, upto) = batch(query);
    let keys = schema.columns.iter().enumerate().filter(|(_, c)| c.stored).enumerate().filter_map(|(stored, (column, spec))| {
        let values: Vec<_> = query.equals(column).into_iter().map(str::to_owned).collect();
        (spec.role == Role::Index && !values.is_empty()).then_some((stored, values))
    });
    EventScan {
        after,
        upto,
        from_ns: time.from,
        to_ns: time.to,
        keys: keys.collect(),
        wanted: query.wanted_stored(schema),
        limit: query.limit(),
    }
}

/// Delivery's batch `(after, upto]`, narrowed to the ids that were asked for.
fn batch(query: &Query) -> (Option<Eid>, Option<Eid>) {
    let ids: Option<Vec<Eid>> = query.equals(EID).into_iter().map(|id| id.parse().ok()).collect();
    // One that is no id matches nothing by itself; SQLite says so.
    let Some((first, last)) = ids.and_then(|ids| Some((*ids.iter().min()?, *ids.iter().max()?))) else {
        return (query.after, query.upto);
    };
    let before = Eid { sequence: first.sequence.saturating_sub(1), ..first };
    (query.after.max(Some(before)), Some(query.upto.map_or(last, |upto| upto.min(last))))
}
