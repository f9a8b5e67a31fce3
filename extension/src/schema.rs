//! `mayfly schema`: the tables from their declarations, for people and for programs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use mayfly_history::{TableKind, TableSchema};
use mayfly_tables::TABLES;
use serde::Serialize;

/// How the schema is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaFormat {
    #[default]
    Json,
    Markdown,
}

#[derive(Serialize)]
struct TableDoc<'a> {
    name: &'a str,
    description: &'a str,
    kind: &'a str,
    columns: Vec<ColumnDoc<'a>>,
    examples: Vec<ExampleDoc<'a>>,
}

#[derive(Serialize)]
struct ColumnDoc<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    hidden: bool,
    description: &'a str,
}

#[derive(Serialize)]
struct ExampleDoc<'a> {
    description: &'a str,
    sql: &'a str,
}

/// Prints the tables, or writes (or compares) their documentation below a folder. Exit code 1 if files differ.
pub fn run(format: SchemaFormat, write: Option<&Path>, compare: Option<&Path>) -> io::Result<ExitCode> {
    if let Some(docs) = write {
        write_docs(docs)?;
    } else if let Some(docs) = compare {
        let differing = check(docs)?;
        for path in &differing {
            writeln!(io::stderr(), "{} differs from the declarations; write it with `cargo xtask docs`", docs.join(path).display())?;
        }
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    } else {
        io::stdout().write_all(print(format).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All tables in one text.
pub fn print(format: SchemaFormat) -> String {
    match format {
        SchemaFormat::Json => json(),
        SchemaFormat::Markdown => TABLES.iter().map(|table| page(table.schema())).collect::<Vec<_>>().join("\n"),
    }
}

fn json() -> String {
    let tables: Vec<_> = TABLES.iter().map(|table| describe(table.schema())).collect();
    let mut text = serde_json::to_string_pretty(&tables).unwrap_or_default();
    text.push('\n');
    text
}

fn describe(schema: &TableSchema) -> TableDoc<'_> {
    let columns = schema.columns.iter().map(|c| ColumnDoc { name: c.name, kind: c.kind.as_str(), hidden: c.hidden, description: c.doc });
    let examples = schema.examples.iter().map(|&(description, sql)| ExampleDoc { description, sql });
    let kind = match schema.kind {
        TableKind::Events => "events",
        TableKind::History => "history",
        TableKind::Live => "live",
    };
    TableDoc { name: schema.name, description: schema.doc, kind, columns: columns.collect(), examples: examples.collect() }
}

/// The page of one table.
fn page(schema: &TableSchema) -> String {
    let mut page = format!("# {}\n\n{}\n\n", schema.name, schema.doc);
    let about = match schema.kind {
        TableKind::Events => {
            "Rows are only ever added. In a scheduled query of osquery each event is returned once; `LIMIT` there discards the rest for good, so do not use it.\n\n"
        }
        TableKind::History => {
            "Each row is an interval: it held from `valid_from` until just before `valid_to`. With `as_of`, only what held at that instant.\n\
             In a join, put this table on the inner side of `CROSS JOIN` or `LEFT JOIN`, so that `as_of` gets its value.\n\n"
        }
        TableKind::Live => "Rows are made when asked.\n\n",
    };
    page.push_str(about);
    page.push_str("| column | type | |\n|---|---|---|\n");
    for column in &schema.columns {
        let hidden = if column.hidden { " *(hidden)*" } else { "" };
        // Writing to a String does not fail.
        let _ = writeln!(page, "| `{}` | {}{hidden} | {} |", column.name, column.kind.as_str(), column.doc.replace('|', "\\|"));
    }
    if schema.columns.iter().any(|c| c.hidden) {
        page.push_str("\nHidden columns are left out of `SELECT *`; name them to get them.\n");
    }
    page.push_str("\n## Examples\n");
    for (description, sql) in schema.examples {
        let _ = write!(page, "\n{description}\n\n```sql\n{sql}\n```\n");
    }
    page
}

/// Every generated file, by its path below the folder of the documentation.
fn files() -> BTreeMap<PathBuf, String> {
    let pages = TABLES.iter().map(|table| (Path::new("tables").join(format!("{}.md", table.schema().name)), page(table.schema())));
    pages.chain([(PathBuf::from("schema.json"), json())]).collect()
}

/// Writes `schema.json` and a page for each table below `docs`, and removes pages of tables that are gone.
pub fn write_docs(docs: &Path) -> io::Result<()> {
    fs::create_dir_all(docs.join("tables"))?;
    for stale in stale(docs)? {
        fs::remove_file(docs.join(stale))?;
    }
    files().into_iter().try_for_each(|(path, text)| fs::write(docs.join(path), text))
}

/// The files below `docs` that differ from the declarations: changed, missing, or of a table that is gone.
pub fn check(docs: &Path) -> io::Result<Vec<PathBuf>> {
    let mut differing = stale(docs)?;
    for (path, text) in files() {
        match fs::read_to_string(docs.join(&path)) {
            Ok(found) if found == text => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => differing.push(path),
        }
    }
    Ok(differing)
}

/// Pages of tables that are not declared.
fn stale(docs: &Path) -> io::Result<Vec<PathBuf>> {
    let declared = files();
    let listed = match fs::read_dir(docs.join("tables")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let paths: Vec<_> = listed.map(|entry| entry.map(|e| Path::new("tables").join(e.file_name()))).collect::<io::Result<_>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "md") && !declared.contains_key(path)).collect())
}

/// The statement that would make the table, each column with its sentence: `.schema` of the shell.
pub fn statement(schema: &TableSchema) -> String {
    let last = schema.columns.len().saturating_sub(1);
    let mut text = format!("-- {}\nCREATE TABLE {} (\n", schema.doc, schema.name);
    for (i, column) in schema.columns.iter().enumerate() {
        let hidden = if column.hidden { " HIDDEN" } else { "" };
        let comma = if i == last { "" } else { "," };
        let _ = writeln!(text, "  {} {}{hidden}{comma} -- {}", column.name, column.kind.as_str(), column.doc);
    }
    text.push_str(");");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_are_written_checked_and_cleared_of_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()).unwrap().len(), TABLES.len() + 1, "all are missing");
        write_docs(dir.path()).unwrap();
        assert_eq!(check(dir.path()).unwrap(), Vec::<PathBuf>::new());
        fs::write(dir.path().join("tables/gone_events.md"), "").unwrap();
        fs::write(dir.path().join("schema.json"), "[]").unwrap();
        assert_eq!(check(dir.path()).unwrap().len(), 2);
        write_docs(dir.path()).unwrap();
        assert_eq!(check(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_committed_docs_are_those_of_the_declarations() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        assert_eq!(check(&docs).unwrap(), Vec::<PathBuf>::new(), "run `cargo xtask docs`");
    }
}
