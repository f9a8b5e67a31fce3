//! The examples that every table's page shows.

use std::path::Path;

use mayfly::sql::Database;
use mayfly_history::store::{StoreOptions, Writer};
use mayfly_tables::TABLES;

use crate::{answer, fixture};

fn failures(dir: &Path) -> Vec<String> {
    let database = Database::open(dir).unwrap();
    let examples = TABLES.iter().flat_map(|table| table.schema().examples);
    examples.filter_map(|(what, sql)| answer(&database, sql).err().map(|error| format!("{what}\n  {sql}\n  {error}"))).collect()
}

#[test]
fn every_example_runs_on_a_host_where_nothing_happened_yet() {
    let dir = tempfile::tempdir().unwrap();
    drop(Writer::open(dir.path(), &StoreOptions::default()).unwrap());
    assert_eq!(failures(dir.path()), Vec::<String>::new());
}

#[test]
fn every_example_runs_on_a_host_where_much_happened() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path()).unwrap();
    assert_eq!(failures(dir.path()), Vec::<String>::new());
}
