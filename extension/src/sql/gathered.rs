//! The rows of one answer, held for as long as a cursor walks over them.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mayfly_history::Cell;
use mayfly_tables::Rows;

/// Rows in two allocations: the wanted cells one after the other, and their texts in one buffer.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Positions of the kept columns; the others read as missing.
    kept: Vec<Option<usize>>,
    width: usize,
    cells: Vec<Held>,
    text: String,
    rows: usize,
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Null,
    Int(i64),
    Text { start: usize, len: usize },
}

impl Gathered {
    /// Keeps the columns that are `wanted`; stops taking rows once `stop` is set.
    pub(super) fn new(wanted: &[bool], stop: Arc<AtomicBool>) -> Self {
        let mut width = 0;
        let mut place = |wanted: &bool| {
            wanted.then(|| {
                width += 1;
                width - 1
            })
        };
        let kept = wanted.iter().map(&mut place).collect();
        Self { kept, width, cells: Vec::new(), text: String::new(), rows: 0, stop }
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// A cell; `Null` where the column was not wanted.
    pub(super) fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let held = self.kept.get(column).copied().flatten().and_then(|place| self.cells.get(row * self.width + place));
        match held.copied() {
            Some(Held::Int(int)) => Cell::Int(int),
            Some(Held::Text { start, len }) => self.text.get(start..start + len).map_or(Cell::Null, Cell::Text),
            Some(Held::Null) | None => Cell::Null,
        }
    }
}

impl Rows for Gathered {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        if self.stop.load(Relaxed) {
            return ControlFlow::Break(());
        }
        for (column, _) in self.kept.iter().enumerate().filter(|(_, place)| place.is_some()) {
            self.cells.push(match cells.get(column).copied().unwrap_or_default() {
                Cell::Null => Held::Null,
                Cell::Int(int) => Held::Int(int),
                Cell::Text(text) => {
                    self.text.push_str(text);
                    Held::Text { start: self.text.len() - text.len(), len: text.len() }
                }
            });
        }
        self.rows += 1;
        ControlFlow::Continue(())
    }
}
