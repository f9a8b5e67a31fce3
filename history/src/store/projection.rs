//! From the cells of a stored row, of whichever layout, to the columns that a reader wants.

use super::{filter, layout::Layout, wire::Input};
use crate::{cell::Cell, table::TableSchema};

/// For each stored column of the reader's table: where a row of one layout has it, if it is wanted.
#[derive(Debug)]
pub(super) struct Projection {
    positions: Vec<Option<usize>>,
    wanted: Vec<bool>,
    width: usize,
    /// Of each cell of a row: whether anyone looks at it.
    used: Vec<bool>,
}

impl Projection {
    /// `wanted` as in a scan; columns in `keys` are decoded in any case.
    pub(super) fn new(layout: &Layout, table: &TableSchema, wanted: &[bool], keys: &[Key]) -> Self {
        let positions = layout.project(table);
        let wanted: Vec<bool> = (0..positions.len()).map(|i| wanted.is_empty() || wanted.get(i) == Some(&true)).collect();
        let mut used = vec![false; layout.len()];
        for (i, position) in positions.iter().enumerate() {
            if let Some(position) = position {
                used[*position] = wanted[i] || keys.iter().any(|k| k.column == i);
            }
        }
        Self { positions, wanted, width: layout.len(), used }
    }

    /// Where the row has the table's stored column `i`.
    pub(super) fn position(&self, i: usize) -> Option<usize> {
        self.positions.get(i).copied().flatten()
    }

    /// The same, if the column is wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Option<usize>> {
        self.positions.iter().zip(&self.wanted).map(|(position, wanted)| position.filter(|_| *wanted))
    }

    /// The cells of an encoded row by their positions; `first` are known from elsewhere. What nobody looks at, what is missing or
    /// damaged is NULL.
    pub(super) fn decode<'a>(&self, first: Option<Cell<'a>>, row: &'a [u8]) -> Vec<Cell<'a>> {
        let mut cells = Vec::with_capacity(self.width);
        cells.extend(first);
        let mut input = Input::new(row);
        while cells.len() < self.width {
            let cell = if self.used[cells.len()] { input.cell() } else { input.skip_cell().map(|()| Cell::Null) };
            let Ok(cell) = cell else { break };
            cells.push(cell);
        }
        cells.resize(self.width, Cell::Null);
        cells
    }

    /// The table's stored columns of a decoded row.
    pub(super) fn pick<'a>(&self, cells: &[Cell<'a>]) -> Vec<Cell<'a>> {
        self.wanted().map(|position| position.map_or(Cell::Null, |p| cells[p])).collect()
    }
}

/// The allowed values of a join key.
#[derive(Debug)]
pub(super) struct Key {
    /// Position among the table's stored columns.
    pub(super) column: usize,
    values: Vec<Value>,
    pub(super) hashes: Vec<u32>,
}

#[derive(Debug)]
enum Value {
    Int(i64),
    Text(String),
}

impl Value {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Int(value) => Cell::Int(*value),
            Self::Text(text) => Cell::Text(text),
        }
    }
}

impl Key {
    /// `column` is a position among the stored columns; values that are no numbers cannot match a column of numbers.
    pub(super) fn new(table: &TableSchema, column: usize, values: &[String]) -> Self {
        let number = table.stored().nth(column).is_some_and(|c| c.kind.is_int());
        let values: Vec<_> = if number {
            values.iter().filter_map(|v| parse_number(v)).map(Value::Int).collect()
        } else {
            values.iter().cloned().map(Value::Text).collect()
        };
        let hashes = values.iter().map(|v| filter::hash(v.cell())).collect();
        Self { column, values, hashes }
    }

    /// A missing text reads as an empty one.
    pub(super) fn matches(&self, cell: Cell<'_>) -> bool {
        self.values.iter().any(|value| match (value.cell(), cell) {
            (Cell::Text(""), Cell::Null) => true,
            (value, cell) => value == cell,
        })
    }
}

/// A whole number, also spelt with a fraction of zero, as SQL may hand it over.
pub(super) fn parse_number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if fraction.bytes().all(|b| b == b'0') { whole.parse().ok() } else { None }
}
