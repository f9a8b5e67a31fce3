//! One SQLite module that serves every table.

use std::{
    borrow::Cow,
    cell::RefCell,
    ffi::{CStr, CString, c_int},
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mayfly_history::{Cell, ColumnType, TableKind, TableSchema, chain, store::Reader};
use mayfly_tables::{Constraint, Home, Op, Query, Table};
use rusqlite::{
    Connection, Error, Result,
    fallible_iterator::FallibleIterator,
    types::ValueRef,
    vtab::{Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConnection, VTabCursor, sqlite3_vtab, sqlite3_vtab_cursor},
};

use super::{
    gathered::Gathered,
    plan::{Offer, Plan, choose},
};
use crate::delivery::show_account;

/// What a table needs to answer.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) table: &'static dyn Table,
    /// Folder of the store.
    pub(super) dir: Arc<Path>,
    /// Set to break off a statement.
    pub(super) stop: Arc<AtomicBool>,
}

/// What one table reads from. It stays within the connection, and so on one thread at a time.
struct Store {
    reader: RefCell<Reader>,
    /// Turns values into text.
    convert: Connection,
}

impl Store {
    fn open(home: Home, dir: &Path) -> Result<Self> {
        let reader = home.open(dir).map_err(|error| refuse(chain(&error)))?;
        Ok(Self { reader: RefCell::new(reader), convert: Connection::open_in_memory()? })
    }
}

const MODULE: Module<'static, Instance> = Module::eponymous_only_module();

/// Makes a table known to a connection.
pub(super) fn register(connection: &Connection, source: Source) -> Result<()> {
    connection.create_module(source.table.schema().name, &MODULE, Some(source))
}

/// A table within one connection. SQLite reads the first field.
#[repr(C)]
struct Instance {
    base: sqlite3_vtab,
    source: Source,
    store: Rc<Store>,
}

/// The statement that tells SQLite the columns.
fn declaration(schema: &TableSchema) -> String {
    let columns: Vec<_> = schema
        .columns
        .iter()
        .map(|column| format!("`{}` {}{}", column.name, column.kind.as_str(), if column.hidden { " HIDDEN" } else { "" }))
        .collect();
    format!("CREATE TABLE {}({})", schema.name, columns.join(", "))
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::ModuleError(why.to_string())
}

// SAFETY: `Instance` is `repr(C)` and begins with `sqlite3_vtab`, as the trait asks.
#[expect(unsafe_code, reason = "SQLite reads the struct through its first field")]
unsafe impl<'vtab> VTab<'vtab> for Instance {
    type Aux = Source;
    type Cursor = Cursor;

    fn connect(
        _: &mut VTabConnection,
        source: Option<&Source>,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let source = source.ok_or_else(|| refuse("a table was registered without its source"))?.clone();
        let declaration = CString::new(declaration(source.table.schema()))?;
        let store = Rc::new(Store::open(source.table.home(), &source.dir)?);
        Ok((declaration.into(), Self { base: sqlite3_vtab::default(), source, store }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        let mut offers: Vec<_> =
            info.constraints().map(|c| Offer { column: c.column(), op: op(&c.operator()), usable: c.is_usable(), list: false }).collect();
        for (i, offer) in offers.iter_mut().enumerate() {
            offer.list = info.is_in_constraint(i)?;
        }
        let (plan, places, cost) = choose(self.source.table.schema(), &offers, info.col_used());
        for (i, place) in places.iter().enumerate() {
            let Some(place) = place else { continue };
            if plan.taken[*place].list {
                info.set_in_constraint(i, true)?;
            }
            // SQLite counts the arguments from 1.
            info.constraint_usage(i).set_argv_index(c_int::try_from(*place + 1).map_err(refuse)?);
        }
        info.set_estimated_cost(cost);
        info.set_idx_str(&plan.to_string());
        Ok(true)
    }

    fn open(&'vtab mut self) -> Result<Cursor> {
        let rows = Gathered::new(&[], Arc::clone(&self.source.stop));
        Ok(Cursor { base: sqlite3_vtab_cursor::default(), source: self.source.clone(), store: Rc::clone(&self.store), rows, row: 0 })
    }
}

fn op(operator: &IndexConstraintOp) -> Option<Op> {
    match operator {
        IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ => Some(Op::Equals),
        IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GT => Some(Op::GreaterThan),
        IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LE => Some(Op::LessThanOrEquals),
        IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LT => Some(Op::LessThan),
        IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GE => Some(Op::GreaterThanOrEquals),
        _ => None,
    }
}

/// A walk over one answer. SQLite reads the first field.
#[repr(C)]
struct Cursor {
    base: sqlite3_vtab_cursor,
    source: Source,
    store: Rc<Store>,
    rows: Gathered,
    row: usize,
}

// SAFETY: `Cursor` is `repr(C)` and begins with `sqlite3_vtab_cursor`, as the trait asks.
#[expect(unsafe_code, reason = "SQLite reads the struct through its first field")]
unsafe impl VTabCursor for Cursor {
    fn filter(&mut self, _: c_int, plan: Option<&str>, arguments: &Filters<'_>) -> Result<()> {
        let plan: Plan = plan.unwrap_or_default().parse().map_err(refuse)?;
        let schema = self.source.table.schema();
        let constraints = constraints(&plan, arguments, &self.store.convert)?;
        let query = Query { constraints, wanted: plan.wanted(schema.columns.len()), ..Query::default() };
        no_cursor(schema, &query)?;
        self.rows = Gathered::new(&query.wanted, Arc::clone(&self.source.stop));
        self.row = 0;
        let mut reader = self.store.reader.borrow_mut();
        if schema.kind == TableKind::Live {
            show_account(&mut reader, &self.source.dir, None);
        }
        self.source.table.generate(&reader, &query, &mut self.rows).map_err(|error| refuse(chain(&error)))?;
        if self.source.stop.load(Relaxed) {
            return Err(refuse("interrupted"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.row += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.row >= self.rows.len()
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        let column = usize::try_from(column).map_err(refuse)?;
        let kind = self.source.table.schema().columns.get(column).map(|c| c.kind);
        match (self.rows.cell(self.row, column), kind) {
            // Empty or no number: NULL, as in osquery.
            (Cell::Text(text), Some(ColumnType::Double)) => context.set_result(text.parse::<f64>().ok()),
            (Cell::Text(text), Some(ColumnType::UnsignedBigInt)) => context.set_result(text.parse::<u64>().ok().map(u64::cast_signed)),
            (Cell::Text(text), _) => context.set_result(text),
            (Cell::Null, Some(ColumnType::Text)) => context.set_result(""),
            (Cell::Null, _) => context.set_result(rusqlite::types::Null),
            #[expect(clippy::cast_possible_truncation, reason = "osquery cuts an INTEGER to 32 bits, and so does this")]
            (Cell::Int(int), Some(ColumnType::Integer)) => context.set_result(int as i32),
            (Cell::Int(int), _) => context.set_result(int),
        }
    }

    fn rowid(&self) -> Result<i64> {
        i64::try_from(self.row).map_err(refuse)
    }
}

/// The constraints that reach the table: as osquery hands them over, NULL and '' are left out, except in a list.
fn constraints(plan: &Plan, arguments: &Filters<'_>, convert: &Connection) -> Result<Vec<Constraint>> {
    let mut constraints = Vec::new();
    for (i, taken) in plan.taken.iter().enumerate() {
        let Some(op) = taken.op else { continue };
        let mut take = |value: ValueRef<'_>| -> Result<()> {
            if let Some(value) = as_text(value, convert)? {
                constraints.push(Constraint { column: taken.column, op, value });
            }
            Ok(())
        };
        if taken.list {
            let mut values = arguments.in_values(i)?;
            while let Some(value) = values.next()? {
                take(value)?;
            }
        } else if let Some(value) = arguments.iter().nth(i)
            && !matches!(value, ValueRef::Text(b"") | ValueRef::Blob(b""))
        {
            take(value)?;
        }
    }
    Ok(constraints)
}

/// The text of a value, as SQLite writes it; `None` for NULL.
fn as_text(value: ValueRef<'_>, convert: &Connection) -> Result<Option<String>> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Integer(int) => Some(int.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        // A parameter is echoed and compared as text: only SQLite knows how many digits it gives a real.
        ValueRef::Real(real) => convert.prepare_cached("SELECT CAST(?1 AS TEXT)")?.query_row([real], |row| row.get(0))?,
    })
}

/// Cursors belong to osquery's connection; here only `'*'` has a meaning.
fn no_cursor(schema: &TableSchema, query: &Query) -> Result<()> {
    let consumer = schema.position("consumer").filter(|_| schema.kind == TableKind::Events);
    match query.constraints.iter().find(|c| Some(c.column) == consumer && c.op == Op::Equals && c.value != "*") {
        None => Ok(()),
        Some(named) => Err(refuse(format!(
            "consumer = {:?} keeps a place in the events, which only the extension can: ask through osquery. Here every query sees all \
             events (consumer = '*')",
            named.value.chars().take(60).collect::<String>()
        ))),
    }
}
