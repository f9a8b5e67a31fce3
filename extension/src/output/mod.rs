//! Results on their way to a person or a program.

mod escape;
mod json;
mod table;

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Write},
};

use rusqlite::types::Value;

pub use self::escape::escaped;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, cut to the terminal's width; what cannot fit is written line by line.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// RFC 4180, with a header.
    Csv,
    /// Each value on its own line.
    Line,
}

impl Format {
    /// A table for a person, JSON for a program.
    pub fn usual() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Json }
    }

    /// Every format, as one names it.
    pub const NAMES: [(&'static str, Self); 4] = [("table", Self::Table), ("json", Self::Json), ("csv", Self::Csv), ("line", Self::Line)];
}

/// Where results go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// Columns of the terminal; `None`: no terminal, nothing is cut.
    pub width: Option<u16>,
    pub colour: bool,
}

impl Screen {
    /// Standard output; `NO_COLOR` is respected.
    pub fn stdout() -> Self {
        let out = io::stdout();
        if !out.is_terminal() {
            return Self::default();
        }
        let width = rustix::termios::tcgetwinsize(&out).map_or(0, |size| size.ws_col);
        Self { width: Some(if width == 0 { 80 } else { width }), colour: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) }
    }
}

/// Writes one result, row by row.
///
/// On a terminal, and always where rows are laid out in lines, control characters are escaped: names and labels of
/// containers come from strangers.
pub struct Printer<'w> {
    out: &'w mut dyn Write,
    screen: Screen,
    columns: Vec<String>,
    rows: usize,
    style: Style,
}

enum Style {
    /// Rows are held until the widths are known.
    Table(Vec<Vec<Value>>),
    Json,
    Csv,
    Line,
}

impl<'w> Printer<'w> {
    pub fn new(out: &'w mut dyn Write, format: Format, screen: Screen, columns: Vec<String>) -> Self {
        let style = match format {
            Format::Table => Style::Table(Vec::new()),
            Format::Json => Style::Json,
            Format::Csv => Style::Csv,
            Format::Line => Style::Line,
        };
        Self { out, screen, columns, rows: 0, style }
    }

    /// Takes a row: a value for each column.
    pub fn row(&mut self, values: Vec<Value>) -> io::Result<()> {
        self.rows += 1;
        match &mut self.style {
            Style::Table(held) => held.push(values),
            Style::Json => {
                self.out.write_all(if self.rows == 1 { b"[\n  " } else { b",\n  " })?;
                json::object(self.out, &self.columns, &values)?;
            }
            Style::Csv => {
                if self.rows == 1 {
                    csv_record(self.out, self.columns.iter().map(|name| name.as_str().into()))?;
                }
                let terminal = self.screen.width.is_some();
                let texts: Vec<_> = values.iter().map(|value| text(value, "")).collect();
                csv_record(self.out, texts.iter().map(|text| if terminal { escaped(text) } else { text.into() }))?;
            }
            Style::Line => {
                if self.rows > 1 {
                    self.out.write_all(b"\n")?;
                }
                table::lines(self.out, &self.columns, &values)?;
            }
        }
        Ok(())
    }

    /// Writes what was held.
    pub fn finish(self) -> io::Result<()> {
        match self.style {
            Style::Table(held) => table::write(self.out, self.screen, &self.columns, &held)?,
            Style::Json => self.out.write_all(if self.rows == 0 { b"[]\n" } else { b"\n]\n" })?,
            Style::Csv if self.rows == 0 => csv_record(self.out, self.columns.iter().map(|name| name.as_str().into()))?,
            Style::Csv | Style::Line => {}
        }
        self.out.flush()
    }
}

impl fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("columns", &self.columns).field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn csv_record<'f>(out: &mut dyn Write, fields: impl Iterator<Item = Cow<'f, str>>) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for field in fields {
        writer.write_field(field.as_bytes())?;
    }
    writer.write_record(None::<&[u8]>)?;
    writer.flush()
}

/// A value as text; `null` where there is none.
fn text(value: &Value, null: &str) -> String {
    match value {
        Value::Null => null.to_owned(),
        Value::Integer(int) => int.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, screen: Screen, columns: &[&str], rows: Vec<Vec<Value>>) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format, screen, columns.iter().map(ToString::to_string).collect());
        for row in rows {
            printer.row(row).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn hostile() -> Vec<Vec<Value>> {
        vec![
            vec![Value::Text("\u{1b}[2Jgone\n\u{9b}31m\u{202e}".into()), Value::Integer(-7)],
            vec![Value::Text("naïve 容器 \"q\",".into()), Value::Null],
        ]
    }

    const TERMINAL: Screen = Screen { width: Some(60), colour: true };

    #[test]
    fn nothing_from_a_container_reaches_the_terminal_unescaped() {
        for (_, format) in Format::NAMES {
            let text = printed(format, TERMINAL, &["name", "code"], hostile());
            let bare = text.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
            let bad = |c: char| (c.is_control() && c != '\n' && c != '\r') || c == '\u{202e}';
            assert!(!bare.contains(bad), "{format:?}: {bare:?}");
            assert!(bare.contains("gone"));
        }
    }

    #[test]
    fn a_program_gets_the_bytes_as_they_are() {
        let csv = printed(Format::Csv, Screen::default(), &["name", "code"], hostile());
        assert_eq!(csv, "name,code\n\"\u{1b}[2Jgone\n\u{9b}31m\u{202e}\",-7\n\"naïve 容器 \"\"q\"\",\",\n");
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, TERMINAL, &["name", "code"], hostile())).unwrap();
        assert_eq!(json[0]["name"], "\u{1b}[2Jgone\n\u{9b}31m\u{202e}");
        assert_eq!((&json[0]["code"], &json[1]["code"]), (&(-7).into(), &serde_json::Value::Null));
    }

    #[test]
    fn an_empty_result_is_still_well_formed() {
        assert_eq!(printed(Format::Json, Screen::default(), &["a"], vec![]), "[]\n");
        assert_eq!(printed(Format::Csv, Screen::default(), &["a", "b"], vec![]), "a,b\n");
        assert_eq!(printed(Format::Line, Screen::default(), &["a"], vec![]), "");
    }

    #[test]
    fn a_table_fits_the_terminal_or_becomes_lines() {
        use unicode_width::UnicodeWidthStr;
        let long = || vec![vec![Value::Text("容".repeat(200)), Value::Integer(1)]];
        let text = printed(Format::Table, Screen { width: Some(40), colour: false }, &["name", "code"], long());
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        assert!(text.contains('…') && text.contains("name"));
        let piped = printed(Format::Table, Screen::default(), &["name", "code"], long());
        assert!(piped.contains(&"容".repeat(200)), "what is piped is not cut");

        let columns: Vec<_> = (0..40).map(|i| format!("column_{i}")).collect();
        let columns: Vec<_> = columns.iter().map(String::as_str).collect();
        let wide = printed(Format::Table, TERMINAL, &columns, vec![vec![Value::Text("some value".into()); 40]]);
        assert!(wide.contains("column_39 = some value"), "{wide}");
    }

    #[test]
    fn numbers_are_never_cut() {
        let row = vec![Value::Integer(1_795_381_202_182_399_628), Value::Text("x".repeat(90)), Value::Integer(1_795_381_202)];
        let text = printed(Format::Table, TERMINAL, &["from_ns", "detail", "time"], vec![row]);
        assert!(text.contains("1795381202182399628") && text.contains(" 1795381202\n") && text.contains('…'), "{text}");
    }

    #[test]
    fn lines_are_aligned_and_separated() {
        let rows = vec![vec![Value::Integer(1), Value::Text("x".into())], vec![Value::Null, Value::Text(String::new())]];
        let text = printed(Format::Line, Screen::default(), &["a", "long"], rows);
        assert_eq!(text, "   a = 1\nlong = x\n\n   a = NULL\nlong = \n");
    }
}
