//! What an error of SQLite means to someone in an incident.

use mayfly_tables::TABLES;
use rusqlite::Error;

use crate::asking::HistoryConfig;

/// The error in one line, with what would help where that is known.
pub fn advice(error: &Error) -> String {
    let said = match error {
        Error::SqliteFailure(_, Some(message)) | Error::SqlInputError { msg: message, .. } => message.clone(),
        other => other.to_string(),
    };
    if let Some(table) = said.strip_prefix("no such table: ") {
        let tables = TABLES.iter().map(|t| t.schema().name);
        if let Some(core) =
            table.strip_suffix("_history").filter(|core| HistoryConfig::default().tables().iter().any(|known| known == core))
        {
            return format!(
                "no such table: {table}; nothing was captured of osquery's {core} here: it takes osqueryd, with mayfly.ext loaded and \
                 {core} among [history] tables"
            );
        }
        return match nearest(table, tables.clone()) {
            Some(near) => format!("no such table: {table}; did you mean {near}?"),
            None => format!("no such table: {table}; osquery's own tables need osquery. Here: {}", tables.collect::<Vec<_>>().join(", ")),
        };
    }
    if let Some(column) = said.strip_prefix("no such column: ") {
        let (prefix, bare) = column.rsplit_once('.').map_or(("", column), |(table, bare)| (&column[..=table.len()], bare));
        let columns = TABLES.iter().flat_map(|t| &t.schema().columns).map(|c| c.name);
        return match nearest(bare, columns) {
            Some(near) => format!("no such column: {column}; did you mean {prefix}{near}?"),
            None => format!("no such column: {column}; `mayfly schema` lists them"),
        };
    }
    // The code is that of any error where a function is refused.
    if said.starts_with("not authorized") || said == "authorization denied" {
        return format!("{said}: only queries are allowed here (SELECT, WITH, VALUES, EXPLAIN)");
    }
    match error {
        Error::SqlInputError { sql, offset, .. } => match usize::try_from(*offset).ok().and_then(|at| sql.get(at..)) {
            Some(rest) if !rest.trim().is_empty() => format!("{said}, at: {}", start(rest)),
            _ => said,
        },
        _ => said,
    }
}

/// The first line of a text, short enough for a message.
fn start(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    if line.chars().count() > 60 { line.chars().take(60).chain(['…']).collect() } else { line.to_owned() }
}

/// The name that `wrong` was most likely meant to be.
pub(crate) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let wrong = wrong.to_ascii_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&wrong, name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use crate::{
        output::{Format, Screen},
        query::write_all,
        sql::Database,
    };

    fn complaint(sql: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::over(dir.path()).unwrap();
        write_all(&database, sql, Format::Csv, Screen::default(), &mut Vec::new()).expect_err(sql).to_string()
    }

    #[test]
    fn an_error_says_what_would_help() {
        assert_eq!(complaint("SELECT * FROM container_histroy"), "no such table: container_histroy; did you mean container_history?");
        let captured = complaint("SELECT * FROM routes_history");
        assert!(captured.contains("nothing was captured of osquery's routes"), "{captured}");
        let core = complaint("SELECT * FROM processes");
        assert!(core.contains("need osquery") && core.contains("recorder_gaps"), "{core}");
        assert_eq!(
            complaint("SELECT h.image_digset FROM container_history h"),
            "no such column: h.image_digset; did you mean h.image_digest?"
        );
        assert!(complaint("SELECT 1 FORM x").contains("near \"x\": syntax error") || complaint("SELECT 1 FORM x").contains("at: "));
    }

    #[test]
    fn nothing_but_queries_is_allowed() {
        for sql in [
            "ATTACH '/tmp/x' AS x",
            "VACUUM INTO '/tmp/x'",
            "CREATE TABLE t(a)",
            "CREATE TEMP TABLE t(a)",
            "PRAGMA writable_schema = 1",
            "PRAGMA journal_mode = DELETE",
            "SELECT load_extension('/tmp/x')",
            "DELETE FROM container_history",
            "INSERT INTO container_history(name) VALUES ('x')",
            "BEGIN",
        ] {
            let text = complaint(sql);
            assert!(
                text.contains("only queries") || text.contains("may not be modified") || text.contains("no such function"),
                "{sql}: {text}"
            );
        }
    }
}
