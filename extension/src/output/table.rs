//! Aligned columns, and lines where columns do not fit.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, Row, Table, TableStyle, Width};
use rusqlite::types::Value;
use unicode_width::UnicodeWidthStr;

use super::{Screen, escape::escaped, text};

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('│'))
    .header_separator(LineStyle::none().fill('─').junction('┼'))
    .content_lines(ContentLineStyle::none().junction('│'));

/// A column of text narrower than this tells nothing, unless its content is.
const READABLE: usize = 6;
/// Beside its content, a column takes a space on each side and a line.
const FRAME: usize = 3;

/// Writes the rows as a table, or as lines where the terminal is too narrow for all columns.
pub(super) fn write(out: &mut dyn Write, screen: Screen, columns: &[String], rows: &[Vec<Value>]) -> io::Result<()> {
    let widths: Vec<_> = (0..columns.len()).map(|column| least_width(column, columns, rows)).collect();
    if let Some(width) = screen.width
        && widths.iter().map(|least| least.cells() + FRAME).sum::<usize>() > usize::from(width)
    {
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                out.write_all(b"\n")?;
            }
            lines(out, columns, row)?;
        }
    } else {
        table(out, screen, columns, rows, &widths)?;
    }
    if screen.width.is_some() {
        writeln!(out, "({} row{})", rows.len(), if rows.len() == 1 { "" } else { "s" })?;
    }
    Ok(())
}

/// The least width at which a column can be read.
enum Least {
    /// A number that is cut is another number.
    Number(usize),
    Text(usize),
}

impl Least {
    fn cells(&self) -> usize {
        match self {
            Self::Number(width) | Self::Text(width) => *width,
        }
    }
}

fn least_width(column: usize, columns: &[String], rows: &[Vec<Value>]) -> Least {
    let values = || rows.iter().filter_map(|row| row.get(column));
    let widest = values().map(|value| text(value, "").width()).max().unwrap_or(0);
    if values().any(is_number) {
        return Least::Number(widest);
    }
    let name = columns.get(column).map_or(0, |name| name.width());
    Least::Text(widest.max(name).min(READABLE))
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Integer(_) | Value::Real(_))
}

fn table(out: &mut dyn Write, screen: Screen, columns: &[String], rows: &[Vec<Value>], widths: &[Least]) -> io::Result<()> {
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
    for (column, least) in table.column_iter_mut().zip(widths) {
        if let Least::Number(width) = least {
            // The space on each side counts.
            let width = u16::try_from(width + 2).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
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
    if is_number(value) { cell.set_alignment(CellAlignment::Right) } else { cell }
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
