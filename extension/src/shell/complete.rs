//! Completion, and where the editor takes a line break for the end.

use mayfly_tables::TABLES;
use rustyline::{
    Context, Helper, Result,
    completion::Completer,
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::statement::is_whole;
use crate::output::Format;

const COMMANDS: [&str; 5] = [".tables", ".schema", ".mode", ".help", ".quit"];
const WORDS: [&str; 24] = [
    "AND",
    "AS",
    "BETWEEN",
    "CROSS JOIN",
    "DISTINCT",
    "EXPLAIN QUERY PLAN",
    "FROM",
    "GROUP BY",
    "HAVING",
    "IN",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER BY",
    "SELECT",
    "UNION",
    "WHERE",
    "WITH",
];

/// What helps the editor.
#[derive(Debug)]
pub(super) struct Assistant;

impl Helper for Assistant {}
impl Highlighter for Assistant {}
impl Hinter for Assistant {
    type Hint = String;
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        Ok(candidates(line, position))
    }
}

/// Where the word at `position` begins, and what it may become.
fn candidates(line: &str, position: usize) -> (usize, Vec<String>) {
    let before = &line[..position];
    let start = before
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    let tables = || TABLES.iter().map(|t| t.schema());
    let pick = |names: &mut dyn Iterator<Item = &'static str>| {
        let begins = |name: &&str| name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        names.filter(begins).map(str::to_owned).collect::<Vec<_>>()
    };
    if before.trim_start().starts_with('.') {
        let found = match before.split_whitespace().next() {
            Some(".schema") if before.contains(' ') => pick(&mut tables().map(|s| s.name)),
            Some(".mode") if before.contains(' ') => pick(&mut Format::NAMES.iter().map(|(name, _)| *name)),
            _ => return (0, COMMANDS.iter().filter(|c| c.starts_with(before)).map(ToString::to_string).collect()),
        };
        return (start, found);
    }
    // Of the tables that the statement names, the columns; of none yet, all.
    let named: Vec<_> = tables().filter(|s| line.contains(s.name)).collect();
    let of = if named.is_empty() { tables().collect() } else { named };
    let mut found = pick(&mut of.iter().flat_map(|s| s.columns.iter().map(|c| c.name)));
    if !before[..start].ends_with('.') {
        found.extend(pick(&mut tables().map(|s| s.name)));
        found.extend(pick(&mut WORDS.into_iter()));
    }
    found.sort_unstable();
    found.dedup();
    (start, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_end(line: &str) -> (usize, Vec<String>) {
        candidates(line, line.len())
    }

    #[test]
    fn completes_tables_columns_words_and_commands() {
        assert_eq!(at_end("SELECT * FROM recorder_g"), (14, vec!["recorder_gaps".to_owned()]));
        assert_eq!(
            at_end("SELECT * FROM container_history h WHERE h.compo"),
            (42, vec!["compose_project".to_owned(), "compose_service".to_owned()])
        );
        assert_eq!(at_end("sel"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(at_end(".sch"), (0, vec![".schema".to_owned()]));
        assert_eq!(at_end(".mode j"), (6, vec!["json".to_owned()]));
        assert_eq!(at_end("SELECT '容 im").0, "SELECT '容 ".len());
        assert!(at_end("SELECT zzz").1.is_empty());
    }
}
