//! What is asked in SQL, without osquery.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod examples;
mod laws;
mod planning;

use mayfly::{
    output::{Format, Screen},
    query::write_all,
    sql::Database,
};

#[path = "../../../tables/cases/fixture.rs"]
mod fixture;

/// The rows in some order, cells joined by `|`.
fn answer(database: &Database, sql: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    write_all(database, sql, Format::Csv, Screen::default(), &mut out).map_err(|error| error.to_string())?;
    let mut reader = csv::Reader::from_reader(&*out);
    let rows = reader.records().map(|row| Ok(row?.iter().collect::<Vec<_>>().join("|"))).collect::<Result<_, csv::Error>>();
    rows.map(|mut rows: Vec<_>| {
        rows.sort();
        rows
    })
    .map_err(|error| error.to_string())
}
