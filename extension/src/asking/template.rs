//! SQL as the configuration has it, with parameters that are filled in from an event's row.
//!
//! osquery's API takes SQL as text alone: nothing can be bound there. So `:name` is replaced by a literal of SQL that gives the very value
//! back and can be nothing else, wherever a parameter may stand; within strings, quoted names and comments there are no parameters.

use std::{fmt::Write, ops::Range};

use mayfly_history::Cell;
use rusqlite::Connection;

/// One query.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    /// The value of the column at that position.
    Column(usize),
}

/// Why SQL cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("there is no column {0:?} that a parameter could stand for")]
    NoColumn(String),
    #[error("a parameter is written `:column`, not {0:?}")]
    Form(String),
    #[error("{0} does not end")]
    Open(&'static str),
    #[error("one query at a time: several are written as a list")]
    Several,
    #[error("only queries: SELECT, WITH or VALUES")]
    NoQuery,
    #[error("there is a NUL character")]
    Nul,
    #[error("cannot be parsed: {0}")]
    Syntax(String),
}

impl Template {
    /// `column`: the position of the column of that name.
    pub(crate) fn parse(sql: &str, column: impl Fn(&str) -> Option<usize>) -> Result<Self, TemplateError> {
        if sql.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let mut pieces = Vec::new();
        let (mut from, mut to) = (0, sql.len());
        let mut first = None;
        for token in (Lexer { sql, at: 0 }) {
            let Token { kind, range } = token?;
            let text = &sql[range.clone()];
            match kind {
                Kind::Blank => continue,
                _ if to < sql.len() => return Err(TemplateError::Several),
                Kind::End => to = range.start,
                Kind::Parameter => {
                    let name =
                        text.strip_prefix(':').filter(|name| !name.is_empty()).ok_or_else(|| TemplateError::Form(text.to_owned()))?;
                    pieces.push(Piece::Text(sql[from..range.start].to_owned()));
                    pieces.push(Piece::Column(column(name).ok_or_else(|| TemplateError::NoColumn(name.to_owned()))?));
                    from = range.end;
                }
                Kind::Other => {}
            }
            first.get_or_insert_with(|| text.to_ascii_lowercase());
        }
        pieces.push(Piece::Text(sql[from..to].trim_end().to_owned()));
        if !first.is_some_and(|word| ["select", "with", "values"].contains(&word.as_str())) {
            return Err(TemplateError::NoQuery);
        }
        let template = Self { pieces };
        template.check()?;
        Ok(template)
    }

    /// Lets SQLite parse it. It does so before it looks for the tables, which only osquery has.
    fn check(&self) -> Result<(), TemplateError> {
        let syntax = |error: rusqlite::Error| TemplateError::Syntax(error.to_string());
        match Connection::open_in_memory().map_err(syntax)?.prepare(&self.fill(&[])) {
            Err(error) if ["syntax error", "incomplete input", "unrecognized token"].iter().any(|it| error.to_string().contains(it)) => {
                Err(syntax(error))
            }
            _ => Ok(()),
        }
    }

    /// The columns that it has as parameters.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Column(column) => Some(*column),
            Piece::Text(_) => None,
        })
    }

    /// The SQL for a row; what the row does not have is NULL.
    pub(crate) fn fill(&self, row: &[Cell<'_>]) -> String {
        let mut sql = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Column(column) => {
                    // Apart from what is beside it, with which it would be another token.
                    sql.push(' ');
                    push_literal(&mut sql, row.get(*column).copied().unwrap_or_default());
                    sql.push(' ');
                }
            }
        }
        sql
    }
}

/// Appends the literal of a value.
fn push_literal(sql: &mut String, cell: Cell<'_>) {
    match cell {
        Cell::Null => sql.push_str("NULL"),
        Cell::Int(int) => {
            // Writing to a String does not fail.
            let _ = write!(sql, "{int}");
        }
        // SQL ends at a NUL: such a text is written as its bytes.
        Cell::Text(text) if text.contains('\0') => {
            sql.push_str("CAST(x'");
            for byte in text.bytes() {
                let _ = write!(sql, "{byte:02x}");
            }
            sql.push_str("' AS TEXT)");
        }
        Cell::Text(text) => {
            sql.push('\'');
            sql.push_str(&text.replace('\'', "''"));
            sql.push('\'');
        }
    }
}

/// As far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// White space and comments.
    Blank,
    /// `:name`, and other forms that SQLite has.
    Parameter,
    /// `;`
    End,
    Other,
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

/// Splits SQL as SQLite's tokenizer does (`sqlite3GetToken`).
struct Lexer<'s> {
    sql: &'s str,
    at: usize,
}

impl Lexer<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.sql.as_bytes().get(at).copied()
    }

    fn skip(&self, at: usize, is_skipped: impl Fn(u8) -> bool) -> usize {
        at + self.sql.as_bytes()[at..].iter().take_while(|byte| is_skipped(**byte)).count()
    }

    /// Where what is quoted ends, from its first quote on; a doubled quote is one within.
    fn quoted(&self, quote: u8, what: &'static str) -> Result<usize, TemplateError> {
        let mut at = self.at + 1;
        loop {
            at = self.skip(at, |byte| byte != quote) + 1;
            match self.byte(at) {
                _ if at > self.sql.len() => return Err(TemplateError::Open(what)),
                Some(next) if next == quote => at += 1,
                _ => return Ok(at),
            }
        }
    }

    fn until(&self, end: &str, what: &'static str) -> Result<usize, TemplateError> {
        // Past the two bytes that begin a comment: `/*/` is none.
        let from = self.at + end.len();
        self.sql.get(from..).and_then(|rest| rest.find(end)).map(|found| from + found + end.len()).ok_or(TemplateError::Open(what))
    }

    fn token(&self, first: u8) -> Result<(Kind, usize), TemplateError> {
        let next = self.byte(self.at + 1);
        Ok(match first {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => (Kind::Blank, self.at + 1),
            b'-' if next == Some(b'-') => (Kind::Blank, self.skip(self.at, |byte| byte != b'\n')),
            b'/' if next == Some(b'*') => (Kind::Blank, self.until("*/", "a comment")?),
            b'\'' => (Kind::Other, self.quoted(first, "a text")?),
            b'"' | b'`' => (Kind::Other, self.quoted(first, "a quoted name")?),
            b'[' => (Kind::Other, self.until("]", "a quoted name")?),
            b';' => (Kind::End, self.at + 1),
            b':' | b'@' | b'$' | b'?' | b'#' => (Kind::Parameter, self.skip(self.at + 1, is_word)),
            _ if is_word(first) => (Kind::Other, self.skip(self.at, is_word)),
            _ => (Kind::Other, self.at + 1),
        })
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, TemplateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let token = self.token(self.byte(self.at)?).map(|(kind, end)| Token { kind, range: self.at..end });
        self.at = token.as_ref().map_or(self.sql.len(), |token| token.range.end);
        Some(token)
    }
}

/// Bytes of names and numbers; those of other alphabets are.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

#[cfg(test)]
mod tests;
