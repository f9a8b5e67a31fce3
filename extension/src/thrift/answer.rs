//! The rows of a table, written straight to the bytes of a reply.
//!
//! A row on the wire is a map of column name to text. Building those maps costs more than reading the rows, so the cells
//! go from where they lie to the buffer; the number of rows stands before them and is patched in at the end.

use std::{io::Write, ops::ControlFlow};

use mayfly_history::{Cell, TableSchema};
use mayfly_tables::Rows;

/// Thrift's binary protocol: the type bytes that a response needs.
mod wire {
    pub(super) const STOP: u8 = 0;
    pub(super) const I32: u8 = 8;
    pub(super) const I64: u8 = 10;
    pub(super) const STRING: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
    pub(super) const MAP: u8 = 13;
    pub(super) const LIST: u8 = 15;
}

/// An `ExtensionResponse` with status 0, being written.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Each wanted column: its position and its name as the wire spells it (length, then bytes).
    columns: Vec<(usize, Vec<u8>)>,
    /// Where the number of rows stands.
    count_at: usize,
    rows: u32,
    max_bytes: usize,
    full: bool,
}

impl Answer {
    /// Begins an answer of `schema`'s columns, those that are `wanted` (by position; empty: all). It stops to take rows
    /// before it grows past `max_bytes`.
    pub fn new(schema: &TableSchema, wanted: &[bool], max_bytes: usize) -> Self {
        let wanted = |position: usize| wanted.is_empty() || wanted.get(position).copied().unwrap_or(false);
        let mut columns: Vec<_> = schema.columns.iter().enumerate().filter(|(i, _)| wanted(*i)).map(|(i, c)| (i, spelt(c.name))).collect();
        if columns.is_empty() {
            // `count(*)` reads no column at all; its rows must still be there to be counted.
            columns.extend(schema.columns.first().map(|c| (0, spelt(c.name))));
        }
        let mut bytes = Vec::with_capacity(4096);
        // The call's result: field 0, a struct. In it field 1, the status: code 0, message, uuid 0.
        field(&mut bytes, wire::STRUCT, 0);
        field(&mut bytes, wire::STRUCT, 1);
        field(&mut bytes, wire::I32, 1);
        bytes.extend(0i32.to_be_bytes());
        field(&mut bytes, wire::STRING, 2);
        bytes.extend(spelt("OK"));
        field(&mut bytes, wire::I64, 3);
        bytes.extend(0i64.to_be_bytes());
        bytes.push(wire::STOP);
        // Field 2, the rows: a list of maps.
        field(&mut bytes, wire::LIST, 2);
        bytes.push(wire::MAP);
        let count_at = bytes.len();
        bytes.extend(0u32.to_be_bytes());
        Self { bytes, columns, count_at, rows: 0, max_bytes, full: false }
    }

    /// Rows taken so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Whether rows were refused because the answer had reached its size.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The finished bytes: everything of the reply behind its message header.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&self.rows.to_be_bytes());
        self.bytes.extend([wire::STOP, wire::STOP]);
        self.bytes
    }
}

impl Rows for Answer {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let before = self.bytes.len();
        self.bytes.extend([wire::STRING, wire::STRING]);
        let cells_at = self.bytes.len();
        self.bytes.extend(0u32.to_be_bytes());
        let mut given = 0u32;
        for (position, name) in &self.columns {
            // What is missing on the wire is '' or NULL to core, by the column's type.
            let cell = cells.get(*position).copied().unwrap_or_default();
            match cell {
                Cell::Null => continue,
                Cell::Text(text) => {
                    self.bytes.extend_from_slice(name);
                    text_value(&mut self.bytes, text);
                }
                Cell::Int(number) => {
                    self.bytes.extend_from_slice(name);
                    number_value(&mut self.bytes, number);
                }
            }
            given += 1;
        }
        if given == 0
            && let Some((_, name)) = self.columns.first()
        {
            self.bytes.extend_from_slice(name);
            text_value(&mut self.bytes, "");
            given = 1;
        }
        if self.bytes.len() > self.max_bytes {
            self.bytes.truncate(before);
            self.full = true;
            return ControlFlow::Break(());
        }
        self.bytes[cells_at..cells_at + 4].copy_from_slice(&given.to_be_bytes());
        self.rows += 1;
        ControlFlow::Continue(())
    }
}

fn field(bytes: &mut Vec<u8>, kind: u8, id: i16) {
    bytes.push(kind);
    bytes.extend(id.to_be_bytes());
}

fn spelt(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + text.len());
    text_value(&mut bytes, text);
    bytes
}

/// Cells are bounded to 64 KiB and names are ours: a length always fits the wire's 32 bits.
fn text_value(bytes: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&text.as_bytes()[..length as usize]);
}

fn number_value(bytes: &mut Vec<u8>, number: i64) {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let written = write!(bytes, "{number}");
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    let length = u32::try_from(bytes.len() - at - 4).unwrap_or(0);
    bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
}
