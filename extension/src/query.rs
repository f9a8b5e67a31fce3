//! `mayfly query`: SQL over the recorder's store, without osquery.

mod advice;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use rusqlite::{
    Batch, Statement,
    fallible_iterator::FallibleIterator,
    types::{Value, ValueRef},
};

pub use self::advice::advice;
pub(crate) use self::advice::nearest;
use crate::{
    output::{Format, Printer, Screen},
    sql::{Database, OpenError},
};

/// What `mayfly query` was asked.
#[derive(Clone, Debug)]
pub struct QueryArgs {
    /// One statement or several, separated by `;`.
    pub sql: String,
    pub format: Format,
    pub state_dir: PathBuf,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite's words, and what would help.
    #[error("{}", advice(.0))]
    Sql(rusqlite::Error),
    #[error("cannot write the result")]
    Output(#[source] io::Error),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Runs the statements and writes what they give to standard output. A reader that goes away (`| head`) ends it well.
pub fn run(args: &QueryArgs) -> Result<ExitCode, QueryError> {
    let database = Database::open(&args.state_dir)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write_all(&database, &args.sql, args.format, Screen::stdout(), &mut out) {
        Err(QueryError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // Dropping the buffer would write, and fail, once more.
            let _ = out.into_parts();
            Ok(ExitCode::SUCCESS)
        }
        written => written.map(|()| ExitCode::SUCCESS),
    }
}

/// Runs each statement of `sql` and writes its rows to `out`. What came before an error has been written.
pub fn write_all(database: &Database, sql: &str, format: Format, screen: Screen, out: &mut dyn Write) -> Result<(), QueryError> {
    let mut statements = Batch::new(database.connection(), sql);
    while let Some(mut statement) = statements.next()? {
        write_one(&mut statement, format, screen, out)?;
    }
    out.flush().map_err(QueryError::Output)
}

fn write_one(statement: &mut Statement<'_>, format: Format, screen: Screen, out: &mut dyn Write) -> Result<(), QueryError> {
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let mut printer = Printer::new(out, format, screen, columns);
    let mut rows = statement.query([])?;
    let failed = loop {
        match rows.next() {
            Ok(Some(row)) => {
                let values = (0..width).map(|i| row.get_ref(i).map(owned)).collect::<Result<_, _>>()?;
                printer.row(values).map_err(QueryError::Output)?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    match failed {
        Some(error) => Err(error.into()),
        None => printer.finish().map_err(QueryError::Output),
    }
}

/// Text that is not UTF-8 (`CAST(x'ff' AS TEXT)`) is made so.
fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(int) => Value::Integer(int),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    }
}
