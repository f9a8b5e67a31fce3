//! Conditions on the row of an event, judged by SQLite in memory.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use mayfly_history::{Cell, ColumnType, TableSchema};
use rusqlite::{
    Connection, Error, Result, ToSql,
    hooks::{AuthAction, AuthContext, Authorization},
    params_from_iter,
    types::{ToSqlOutput, Value, ValueRef},
};

use crate::sql::reads;

/// Bytecode steps of SQLite between two looks at whether a condition took too many.
const STEPS: i32 = 1000;
/// How many looks it may take.
const MOST_LOOKS: u32 = 200;
/// Statements that stay compiled: one for each condition of a table, and two of ours.
const MOST_STATEMENTS: usize = 4096;

/// Conditions on the events of one table. It holds one row at a time, in a table of the same name and columns.
#[derive(Debug)]
pub(super) struct Conditions {
    connection: Connection,
    table: &'static str,
    kinds: Vec<ColumnType>,
    insert: String,
    looks_left: Arc<AtomicU32>,
}

impl Conditions {
    pub(super) fn over(schema: &TableSchema) -> Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        connection.set_prepared_statement_cache_capacity(MOST_STATEMENTS);
        let columns: Vec<_> = schema.columns.iter().map(|column| format!("\"{}\" {}", column.name, column.kind.as_str())).collect();
        connection.execute_batch(&format!("CREATE TABLE \"{}\" ({})", schema.name, columns.join(", ")))?;
        let looks_left = Arc::new(AtomicU32::new(u32::MAX));
        let left = Arc::clone(&looks_left);
        connection.progress_handler(STEPS, Some(move || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()))?;
        let holes = vec!["?"; schema.columns.len()].join(", ");
        let insert = format!("INSERT INTO \"{}\" VALUES ({holes})", schema.name);
        Ok(Self { connection, table: schema.name, kinds: schema.columns.iter().map(|column| column.kind).collect(), insert, looks_left })
    }

    fn statement(&self, when: &str) -> String {
        format!("SELECT 1 FROM \"{}\" WHERE (\n{when}\n)", self.table)
    }

    /// Compiles a condition; gives the positions of the columns that it reads.
    pub(super) fn prepare(&mut self, when: &str) -> Result<BTreeSet<usize>> {
        let refuse = |why: &str| Err(Error::ModuleError(why.to_owned()));
        // What is one condition in parentheses may be something else without them, or in others.
        for alone in [format!("SELECT 1 WHERE {when}\n"), format!("SELECT (\n{when}\n)")] {
            if let Err(error) = self.connection.prepare(&alone)
                && error.to_string().contains("syntax error")
            {
                return Err(error);
            }
        }
        let read = Arc::<Mutex<BTreeSet<String>>>::default();
        let reading = Arc::clone(&read);
        self.connection.authorizer(Some(move |context: AuthContext<'_>| {
            if let AuthAction::Read { column_name, .. } = context.action {
                reading.lock().unwrap_or_else(PoisonError::into_inner).insert(column_name.to_owned());
            }
            if reads(&context.action) { Authorization::Allow } else { Authorization::Deny }
        }))?;
        // Stays in the cache, compiled under that watch.
        let parameters = self.connection.prepare_cached(&self.statement(when)).map(|statement| statement.parameter_count());
        self.connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
        if parameters? > 0 {
            return refuse("a condition has no parameters: columns stand in it by their names");
        }
        let columns = self.connection.prepare(&format!("SELECT * FROM \"{}\"", self.table))?;
        let read = read.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(columns.column_names().enumerate().filter(|(_, name)| read.contains(*name)).map(|(at, _)| at).collect())
    }

    /// Takes the row that is judged from now on.
    pub(super) fn hold(&self, row: &[Cell<'_>]) -> Result<()> {
        self.looks_left.store(u32::MAX, Relaxed);
        self.connection.prepare_cached(&format!("DELETE FROM \"{}\"", self.table))?.execute([])?;
        self.connection.prepare_cached(&self.insert)?.execute(params_from_iter(row.iter().zip(&self.kinds).map(Bound)))?;
        Ok(())
    }

    /// Whether the row meets a condition.
    ///
    /// # Errors
    /// When it cannot be judged: an error of a function, or too many steps.
    pub(super) fn is_met(&self, when: &str) -> Result<bool> {
        self.looks_left.store(MOST_LOOKS, Relaxed);
        self.connection.prepare_cached(&self.statement(when))?.exists([])
    }
}

/// A cell as osquery would show it: a text that is missing is empty.
struct Bound<'c>((&'c Cell<'c>, &'c ColumnType));

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            (Cell::Int(int), _) => ToSqlOutput::Owned(Value::Integer(*int)),
            (Cell::Text(text), _) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            (Cell::Null, ColumnType::Text) => ToSqlOutput::Borrowed(ValueRef::Text(b"")),
            (Cell::Null, _) => ToSqlOutput::Owned(Value::Null),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_judged_as_osquery_would_see_it_and_endless_ones_are_broken_off() {
        let schema = mayfly_tables::find("container_lifecycle_events").unwrap().schema();
        let mut conditions = Conditions::over(schema).unwrap();
        let mut row = vec![Cell::Null; schema.columns.len()];
        row[schema.position("action").unwrap()] = Cell::Text("die");
        row[schema.position("exit_code").unwrap()] = Cell::Int(137);
        let endless = "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)";
        let cases = [
            ("action = 'die'", true),
            ("action = 'die' AND exit_code = '137'", true),
            ("exit_code = 0", false),
            ("name = ''", true),
            ("pid > 0", false),
            ("1 -- always", true),
            ("container_lifecycle_events.action LIKE 'D%'", true),
        ];
        for when in cases.iter().map(|(when, _)| *when).chain([endless]) {
            conditions.prepare(when).unwrap();
        }
        conditions.hold(&row).unwrap();
        for (when, met) in cases {
            assert_eq!(conditions.is_met(when).unwrap(), met, "{when}");
        }
        assert!(conditions.is_met(endless).unwrap_err().to_string().contains("interrupt"));
        assert!(conditions.is_met("action = 'die'").unwrap(), "the next one is judged");
        row[schema.position("action").unwrap()] = Cell::Text("start");
        conditions.hold(&row).unwrap();
        assert!(!conditions.is_met("action = 'die'").unwrap());
    }
}
