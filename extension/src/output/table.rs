//! Aligned columns, and lines where columns do not fit.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Row, Table, TableStyle};
use rusqlite::types::Value;
use unicode_width::UnicodeWidthStr;

use super::{Screen, escape::escaped, text};

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('│'))
    .header_separator(LineStyle::none().fill('─').junction('┼'))
    .content_lines(ContentLineStyle::none().junction('│'));

/// A column narrower than this tells nothing, unless its content is.
const READABLE: usize = 6;
/// Beside its content, a column takes a space on each side and a line.
const FRAME: usize = 3;

/// Writes the rows as a table, or as lines where the terminal is too narrow for all columns.
pub(super) fn write(out: &mut dyn Write, screen: Screen, columns: &[String], rows: &[Vec<Value>]) -> io::Result<()> {
    if let Some(width) = screen.width
        && least_width(columns, rows) > usize::from(width)
    {
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                out.write_all(b"\n")?;
            }
            lines(out, columns, row)?;
        }
    } else {
        table(out, screen, columns, rows)?;
    }
    if screen.width.is_some() {
        writeln!(out, "({} row{})", rows.len(), if rows.len() == 1 { "" } else { "s" })?;
    }
    Ok(())
}

/// The least width at which each column can be read.
fn least_width(columns: &[String], rows: &[Vec<Value>]) -> usize {
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|value| text(value, "").width()).max().unwrap_or(0);
    columns.iter().enumerate().map(|(i, name)| widest(i).max(name.width()).min(READABLE) + FRAME).sum()
}

fn table(out: &mut dyn Write, screen: Screen, columns: &[String], rows: &[Vec<Value>]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(STYLE);
    if let Some(width) = screen.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_truncation_indicator("…");
    }
    let one_line = |cells: Vec<Cell>| {
        let mut row = Row::from(cells);
        row.max_height(1);
        row
    };
    table.set_header(one_line(columns.iter().map(|name| Cell::new(escaped(name))).collect()));
    for row in rows {
        table.add_row(one_line(row.iter().map(cell).collect()));
    }
    for (i, line) in table.lines().enumerate() {
        match i {
            0 if screen.colour => writeln!(out, "\u{1b}[1m{}\u{1b}[0m", line.trim_end())?,
            _ => writeln!(out, "{}", line.trim_end())?,
        }
    }
    Ok(())
}

fn cell(value: &Value) -> Cell {
    let cell = Cell::new(escaped(&text(value, "")));
    match value {
        Value::Integer(_) | Value::Real(_) => cell.set_alignment(CellAlignment::Right),
        _ => cell,
    }
}

/// Writes one row, each value on its own line.
pub(super) fn lines(out: &mut dyn Write, columns: &[String], values: &[Value]) -> io::Result<()> {
    let width = columns.iter().map(|name| name.width()).max().unwrap_or(0);
    for (name, value) in columns.iter().zip(values) {
        let indent = " ".repeat(width - name.width());
        writeln!(out, "{indent}{} = {}", escaped(name), escaped(&text(value, "NULL")))?;
    }
    Ok(())
}
