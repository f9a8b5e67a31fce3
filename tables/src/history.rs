//! Answers for all history tables.

use std::{ops::ControlFlow, sync::OnceLock};

use mayfly_history::{
    Cell, Fact, HistoryTable, Nanos, Role, TableSchema,
    feed::Gap,
    recorder::Declarations,
    store::{IntervalScan, Reader},
};

use crate::{
    as_of,
    bounds::{Bounds, Unit},
    complete::{Blindness, Interval},
    parameter,
    query::{Answered, Query, Rows, Table, TableError},
    who::Who,
};

/// A history table that can be asked.
#[expect(missing_debug_implementations, reason = "a declaration is made of functions")]
pub struct History<S: 'static> {
    declaration: &'static HistoryTable<S>,
    schema: OnceLock<TableSchema>,
    declare: Option<fn(&mut Declarations, &'static HistoryTable<S>)>,
}

impl<S> History<S> {
    /// A history whose intervals a reducer of the recorder writes.
    pub const fn of(declaration: &'static HistoryTable<S>) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: None }
    }
}

impl<S: Fact> History<S> {
    /// A history whose intervals follow from the changes that sources push.
    pub const fn pushed(declaration: &'static HistoryTable<S>) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: Some(Declarations::add_history::<S>) }
    }
}

impl<S> History<S> {
    /// The same, which tells the recorder so.
    pub const fn reduced(declaration: &'static HistoryTable<S>, declare: fn(&mut Declarations, &'static HistoryTable<S>)) -> Self {
        Self { declaration, schema: OnceLock::new(), declare: Some(declare) }
    }
}

impl<S> Table for History<S> {
    fn schema(&self) -> &TableSchema {
        self.schema.get_or_init(|| self.declaration.schema())
    }

    fn declare(&self, declarations: &mut Declarations) {
        if let Some(declare) = self.declare {
            declare(declarations, self.declaration);
        }
    }

    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError> {
        generate(self.schema(), query, store, rows, |_| self.declaration.witnesses)
    }
}

/// Answers `query` from the intervals of a history. `witnesses`: the sources whose gaps matter to it, and of these gaps what it leaves.
pub(crate) fn generate<'w>(
    schema: &TableSchema,
    query: &Query,
    store: &Reader,
    rows: &mut dyn Rows,
    witnesses: impl FnOnce(&mut Vec<Gap>) -> &'w [&'w str],
) -> Result<Answered, TableError> {
    let asked = parameter::values(schema, "as_of", query)?;
    let mut instants = Vec::new();
    for text in &asked {
        let instant = as_of::parse(text).map_err(|error| TableError::Parameter(error.to_string()))?;
        instants.push((Some(instant), Cell::Text(text)));
    }
    if asked.is_empty() {
        instants.push((None, Cell::Null));
    }
    let judges = schema.position("complete").is_some_and(|column| query.wants(column));
    let judge = |mut gaps: Vec<Gap>| {
        let witnesses = witnesses(&mut gaps);
        Blindness::of(gaps, witnesses)
    };
    let blindness = judges.then(|| store.gaps().map(judge)).transpose()?;
    // Judging needs the endpoint, whether it is read or not.
    let endpoint = schema.stored().position(|c| c.name == "endpoint");

    let mut answered = Answered::default();
    let mut scan = scan(schema, query);
    if let Some(wanted) = endpoint.and_then(|column| scan.wanted.get_mut(column)) {
        *wanted |= judges;
    }
    let mut who = Who::new(schema, query, store, &mut scan.wanted);
    let mut failed = None;
    for (instant, echo) in instants {
        scan.as_of = instant;
        scan.limit = Query { max_rows: query.max_rows.map(|most| most.saturating_sub(answered.rows)), ..Query::default() }.limit();
        let mut stopped = false;
        let scanned = store.intervals(schema, &scan, &mut |interval| {
            let seen = Interval {
                from: interval.valid_from_ns,
                to: interval.valid_to_ns,
                ended_reason: interval.ended_reason,
                endpoint: match endpoint.and_then(|column| interval.cells.get(column)) {
                    Some(Cell::Text(endpoint)) => endpoint,
                    _ => "",
                },
            };
            let complete = blindness.as_ref().map_or(Cell::Null, |b| Cell::Int(b.complete(&seen, instant).into()));
            let ns = |time: Option<Nanos>| time.map_or(Cell::Null, Cell::Int);
            let seconds = |time: Option<Nanos>| ns(time.map(|t| t.div_euclid(Unit::Second as i64)));
            let mut row = Vec::with_capacity(schema.columns.len());
            match &mut who {
                None => row.extend_from_slice(interval.cells),
                Some(who) => {
                    if let Err(error) = who.fill(&mut row, interval.cells, instant.unwrap_or(interval.valid_from_ns)) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            row.extend([
                seconds(Some(interval.valid_from_ns)),
                seconds(interval.valid_to_ns),
                ns(Some(interval.valid_from_ns)),
                ns(interval.valid_to_ns),
                Cell::Text(interval.ended_reason),
                Cell::Text(interval.evidence),
                complete,
                echo,
            ]);
            let flow = rows.row(&row);
            stopped |= flow.is_break();
            flow
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        answered.rows += scanned.rows;
        answered.cut |= scanned.cut;
        if stopped {
            break;
        }
    }
    Ok(answered)
}

/// The part of the store that can hold what `query` asks for, at whatever instant.
fn scan(schema: &TableSchema, query: &Query) -> IntervalScan {
    let bounds = |seconds: &str, nanos: &str| {
        let of = |name: &str, unit| schema.position(name).map_or_else(Bounds::default, |column| Bounds::of(query.on(column), unit));
        of(seconds, Unit::Second).both(of(nanos, Unit::Nano))
    };
    let start = bounds("valid_from", "valid_from_ns");
    // An interval that holds has no end: it passes, and SQLite decides about NULL.
    let end = bounds("valid_to", "valid_to_ns");
    let key = schema.columns.iter().position(|c| c.stored && c.role == Role::Index);
    IntervalScan {
        keys: key.and_then(|column| keys(schema, query, column)).unwrap_or_default(),
        as_of: None,
        from_min: start.from,
        from_max: start.to,
        to_after: end.from.map(|from| from.saturating_sub(1)),
        wanted: query.wanted_stored(schema),
        limit: query.limit(),
    }
}

/// The keys that are asked for, as they are stored. `None` where one is a number in another form (`1e3`): then all are looked at.
fn keys(schema: &TableSchema, query: &Query, column: usize) -> Option<Vec<String>> {
    let is_number = schema.columns.get(column)?.kind.is_int();
    let stored = |asked: &str| if is_number { asked.parse::<i64>().ok().map(|n| n.to_string()) } else { Some(asked.to_owned()) };
    query.equals(column).into_iter().map(stored).collect()
}

#[cfg(test)]
mod tests {
    use mayfly_history::account::User;

    use super::*;
    use crate::query::{Constraint, Op};

    #[test]
    fn a_number_is_sought_as_it_is_stored() {
        let schema = History::<User>::of(&crate::users_history::USERS_HISTORY).schema().clone();
        let sought = |values: &[&str]| {
            let constraint = |value: &&str| Constraint { column: 0, op: Op::Equals, value: (*value).to_owned() };
            scan(&schema, &Query { constraints: values.iter().map(constraint).collect(), ..Query::default() }).keys
        };
        assert_eq!(sought(&["1000", "+7", "007"]), ["1000", "7", "7"]);
        assert!(sought(&["1000", "1e3"]).is_empty(), "all are looked at");
    }
}
