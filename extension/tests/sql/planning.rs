//! The cases of `tables/cases/planning.toml`, without osquery.

use mayfly::sql::Database;
use serde::Deserialize;

use crate::{answer, fixture};

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    sql: String,
    rows: Option<Vec<String>>,
    error: Option<String>,
}

#[test]
fn every_case_gives_the_right_rows_or_the_error_that_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path()).unwrap();
    let database = Database::open(dir.path()).unwrap();
    let cases: Cases = toml::from_str(include_str!("../../../tables/cases/planning.toml")).unwrap();
    assert!(cases.case.len() > 80);
    let wrong: Vec<_> = cases
        .case
        .iter()
        .filter_map(|case| {
            let found = answer(&database, &case.sql);
            let expected = case.rows.clone().map(|mut rows| {
                rows.sort();
                rows
            });
            let right = match &found {
                Ok(rows) => expected.as_ref() == Some(rows),
                Err(message) => case.error.as_ref().is_some_and(|part| message.contains(part)),
            };
            (!right).then(|| format!("{}\n  {}\n  expected {expected:?} or {:?}\n  found    {found:?}", case.name, case.sql, case.error))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
