//! A block: some thousand sealed events of one table, one column after the other.
//!
//! ```text
//! plain      = version (1 byte), rows, columns (varints), sequences, times (sections of signed varints, each the difference to the one before), column…
//! column     = entries (varint), dictionary (section), codes (section)
//! dictionary = the distinct cells in the order in which they first appear; an integer as the difference to the integer before
//! codes      = of each row one byte, or two where there are more than 255 entries: 0 is the next new entry, n the entry n - 1;
//!              left out where all rows have the only entry
//! ```
//!
//! Columns that depend on the same thing (id, name, address, pid of a container) get the same codes, so that all but the
//! first cost next to nothing. The columns' names are in the layout that is stored beside the block.

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::RandomState;

use super::{
    filter,
    wire::{Input, Malformed, put_cell, put_section, put_signed, put_varint},
};
use crate::{cell::Cell, time::Nanos};

/// Most rows of a block: their codes fit two bytes.
pub(super) const MAX_ROWS: usize = 4096;
const VERSION: u8 = 1;

/// A block in the making; it borrows the rows.
#[derive(Debug)]
pub(super) struct BlockBuilder<'a> {
    rows: usize,
    sequences: Vec<u8>,
    times: Vec<u8>,
    last_sequence: i64,
    last_time: Nanos,
    columns: Vec<ColumnBuilder<'a>>,
    /// The column that tells which rows are alike, and of each of its entries the codes of the last row with it.
    alike: Option<usize>,
    codes_of: Vec<Vec<u16>>,
}

impl<'a> BlockBuilder<'a> {
    /// A block of `columns` columns. Rows with the same cell in column `alike` (a container's id) are expected to share others: it
    /// is tried whether they do before a cell is looked up.
    pub(super) fn new(columns: usize, alike: Option<usize>) -> Self {
        let columns: Vec<_> = (0..columns).map(|_| ColumnBuilder::default()).collect();
        let alike = alike.filter(|i| *i < columns.len());
        Self { rows: 0, sequences: Vec::new(), times: Vec::new(), last_sequence: 0, last_time: 0, columns, alike, codes_of: Vec::new() }
    }

    /// Adds a row of encoded cells. What it lacks, or what is damaged, is NULL: one row must not keep the others from being sealed.
    pub(super) fn push(&mut self, sequence: i64, time_ns: Nanos, row: &'a [u8]) {
        put_signed(&mut self.sequences, sequence.wrapping_sub(self.last_sequence));
        put_signed(&mut self.times, time_ns.wrapping_sub(self.last_time));
        (self.last_sequence, self.last_time) = (sequence, time_ns);
        let mut input = Input::new(row);
        let mut cells = Vec::with_capacity(self.columns.len());
        cells.extend((0..self.columns.len()).map_while(|_| input.cell().ok()));
        cells.resize(self.columns.len(), Cell::Null);
        let like = self.alike.and_then(|i| self.columns[i].known.get(&cells[i])).map(|code| usize::from(code - 1));
        let guesses = like.and_then(|i| self.codes_of.get(i)).map_or(&[][..], Vec::as_slice);
        let codes = self.columns.iter_mut().zip(cells).enumerate().map(|(i, (column, cell))| column.push(cell, guesses.get(i).copied()));
        let codes: Vec<u16> = codes.collect();
        match like {
            Some(i) => self.codes_of[i] = codes,
            None if self.alike.is_some() => self.codes_of.push(codes),
            None => {}
        }
        self.rows += 1;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The filters of the columns at `positions`.
    pub(super) fn filters(&self, positions: &[usize]) -> Vec<u8> {
        let mut filters = Vec::new();
        for &position in positions {
            filter::put(&mut filters, position, self.columns[position].known.keys().map(|cell| filter::hash(*cell)).collect());
        }
        filters
    }

    /// The block's plain bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut plain = vec![VERSION];
        put_varint(&mut plain, self.rows as u64);
        put_varint(&mut plain, self.columns.len() as u64);
        put_section(&mut plain, &self.sequences);
        put_section(&mut plain, &self.times);
        for column in self.columns {
            column.finish(&mut plain);
        }
        plain
    }
}

#[derive(Debug, Default)]
struct ColumnBuilder<'a> {
    known: HashMap<Cell<'a>, u16, RandomState>,
    entries: Vec<Cell<'a>>,
    dictionary: Vec<u8>,
    last_int: i64,
    /// Of the row before.
    last: u16,
    codes: Vec<u16>,
}

impl<'a> ColumnBuilder<'a> {
    /// Adds a cell; returns its code. It is often that of the row before, or the guessed one.
    fn push(&mut self, cell: Cell<'a>, guess: Option<u16>) -> u16 {
        let is = |code: u16| usize::from(code).checked_sub(1).and_then(|i| self.entries.get(i)) == Some(&cell);
        self.last = match [Some(self.last), guess].into_iter().flatten().find(|code| is(*code)) {
            Some(code) => {
                self.codes.push(code);
                code
            }
            None => self.look_up(cell),
        };
        self.last
    }

    fn look_up(&mut self, cell: Cell<'a>) -> u16 {
        let next = u16::try_from(self.entries.len() + 1).unwrap_or(u16::MAX);
        match self.known.entry(cell) {
            Entry::Occupied(known) => {
                self.codes.push(*known.get());
                *known.get()
            }
            Entry::Vacant(new) => {
                new.insert(next);
                self.codes.push(0);
                self.entries.push(cell);
                self.put_entry(cell);
                next
            }
        }
    }

    fn put_entry(&mut self, cell: Cell<'a>) {
        let Cell::Int(value) = cell else { return put_cell(&mut self.dictionary, cell) };
        put_cell(&mut self.dictionary, Cell::Int(value.wrapping_sub(self.last_int)));
        self.last_int = value;
    }

    fn finish(self, out: &mut Vec<u8>) {
        put_varint(out, self.known.len() as u64);
        put_section(out, &self.dictionary);
        let codes: Vec<u8> = match self.known.len() {
            0 | 1 => Vec::new(),
            2..=255 => self.codes.iter().map(|c| c.to_le_bytes()[0]).collect(),
            _ => self.codes.iter().flat_map(|c| c.to_le_bytes()).collect(),
        };
        put_section(out, &codes);
    }
}

/// A block's plain bytes, taken apart; a column is decoded when it is asked for.
#[derive(Debug)]
pub(super) struct Block<'a> {
    rows: usize,
    sequences: &'a [u8],
    times: &'a [u8],
    columns: Vec<Packed<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Packed<'a> {
    entries: usize,
    dictionary: &'a [u8],
    codes: &'a [u8],
}

impl<'a> Block<'a> {
    pub(super) fn parse(plain: &'a [u8]) -> Result<Self, Malformed> {
        let (&VERSION, plain) = plain.split_first().ok_or("a block is empty")? else { return Err("a block has an unknown version") };
        let mut input = Input::new(plain);
        let (rows, columns) = (input.count()?, input.count()?);
        if rows > MAX_ROWS {
            return Err("a block has more rows than blocks have");
        }
        let (sequences, times) = (input.section()?, input.section()?);
        let mut packed = Vec::new();
        for _ in 0..columns {
            packed.push(Packed {
                entries: usize::try_from(input.varint()?).unwrap_or(usize::MAX),
                dictionary: input.section()?,
                codes: input.section()?,
            });
        }
        Ok(Self { rows, sequences, times, columns: packed })
    }

    pub(super) fn sequences(&self) -> Result<Vec<i64>, Malformed> {
        running_sums(self.sequences, self.rows)
    }

    pub(super) fn times(&self) -> Result<Vec<Nanos>, Malformed> {
        running_sums(self.times, self.rows)
    }

    /// The column at `position`; all NULL if the block has fewer.
    pub(super) fn column(&self, position: usize) -> Result<BlockColumn<'a>, Malformed> {
        let Some(packed) = self.columns.get(position) else { return Ok(BlockColumn::default()) };
        if packed.entries > self.rows {
            return Err("a column has more entries than rows");
        }
        let mut input = Input::new(packed.dictionary);
        let mut dictionary = Vec::with_capacity(packed.entries);
        let mut last = 0i64;
        for _ in 0..packed.entries {
            dictionary.push(match input.cell()? {
                Cell::Int(step) => {
                    last = last.wrapping_add(step);
                    Cell::Int(last)
                }
                cell => cell,
            });
        }
        Ok(BlockColumn { codes: packed.resolve(self.rows)?, dictionary })
    }
}

fn running_sums(bytes: &[u8], rows: usize) -> Result<Vec<i64>, Malformed> {
    let mut input = Input::new(bytes);
    let mut last = 0i64;
    (0..rows)
        .map(|_| {
            last = last.wrapping_add(input.signed()?);
            Ok(last)
        })
        .collect()
}

impl Packed<'_> {
    /// Of each row the position of its entry; empty where there is but one.
    fn resolve(&self, rows: usize) -> Result<Vec<u16>, Malformed> {
        let mut new = 0u16;
        let mut entry = |code: u16| {
            let position = if code == 0 {
                new += 1;
                new - 1
            } else {
                code - 1
            };
            if usize::from(position) < self.entries { Ok(position) } else { Err("a row names an entry that is not there") }
        };
        match (self.entries, self.codes.as_chunks::<2>()) {
            (0 | 1, _) => Ok(Vec::new()),
            (2..=255, _) if self.codes.len() == rows => self.codes.iter().map(|c| entry(u16::from(*c))).collect(),
            (256.., (codes, [])) if codes.len() == rows => codes.iter().map(|c| entry(u16::from_le_bytes(*c))).collect(),
            _ => Err("a column has not one code for each row"),
        }
    }
}

/// A decoded column.
#[derive(Debug, Default)]
pub(super) struct BlockColumn<'a> {
    pub(super) dictionary: Vec<Cell<'a>>,
    codes: Vec<u16>,
}

impl<'a> BlockColumn<'a> {
    /// Position in the dictionary of a row's cell.
    pub(super) fn entry(&self, row: usize) -> usize {
        self.codes.get(row).copied().map_or(0, usize::from)
    }

    pub(super) fn cell(&self, row: usize) -> Cell<'a> {
        self.dictionary.get(self.entry(row)).copied().unwrap_or(Cell::Null)
    }
}

/// Entry points for fuzzers.
#[doc(hidden)]
pub mod fuzzing {
    use zstd::bulk::Decompressor;

    use super::Block;
    use crate::store::{chunk, frame::inflate};

    /// Opens a block or a chunk as it lies in the file, and bytes as if they had been inflated.
    pub fn decode_block(bytes: &[u8]) {
        let mut plain = Vec::new();
        if Decompressor::new().is_ok_and(|mut decompressor| inflate(bytes, &mut decompressor, &mut plain).is_ok()) {
            read(&plain);
        }
        read(bytes);
    }

    fn read(plain: &[u8]) {
        // Ends after an error; takes a byte at least for each row.
        let _ = chunk::rows(plain).take(plain.len() + 1).count();
        let Ok(block) = Block::parse(plain) else { return };
        let _ = (block.sequences(), block.times());
        for column in (0..=block.columns.len()).filter_map(|position| block.column(position).ok()) {
            (0..block.rows).for_each(|row| {
                column.cell(row);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn any_cell() -> impl Strategy<Value = Option<Result<i64, String>>> {
        prop_oneof![Just(None), any::<i64>().prop_map(|i| Some(Ok(i))), "[a-c]{0,2}".prop_map(|t| Some(Err(t)))]
    }

    fn cell(value: &Option<Result<i64, String>>) -> Cell<'_> {
        match value {
            None => Cell::Null,
            Some(Ok(i)) => Cell::Int(*i),
            Some(Err(t)) => Cell::Text(t),
        }
    }

    fn seal(rows: &[(i64, Nanos, Vec<u8>)], columns: usize) -> Vec<u8> {
        let mut builder = BlockBuilder::new(columns, Some(0));
        rows.iter().for_each(|(sequence, time, row)| builder.push(*sequence, *time, row));
        builder.finish()
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(rows in vec((any::<i64>(), any::<i64>(), vec(any_cell(), 3)), 0..300)) {
            let encoded: Vec<_> = rows.iter().map(|(sequence, time, cells)| {
                let mut row = Vec::new();
                cells.iter().for_each(|c| put_cell(&mut row, cell(c)));
                (*sequence, *time, row)
            }).collect();
            let plain = seal(&encoded, 3);
            let block = Block::parse(&plain).unwrap();
            prop_assert_eq!(block.sequences().unwrap(), rows.iter().map(|r| r.0).collect::<Vec<_>>());
            prop_assert_eq!(block.times().unwrap(), rows.iter().map(|r| r.1).collect::<Vec<_>>());
            for position in 0..3 {
                let column = block.column(position).unwrap();
                for (i, row) in rows.iter().enumerate() {
                    prop_assert_eq!(column.cell(i), cell(&row.2[position]));
                }
            }
            prop_assert_eq!(block.column(3).unwrap().cell(0), Cell::Null);
        }

        #[test]
        fn any_bytes_are_a_block_or_an_error(mut plain: Vec<u8>) {
            if let Some(first) = plain.first_mut() {
                *first = VERSION;
            }
            if let Ok(block) = Block::parse(&plain) {
                let _ = (block.sequences(), block.times());
                (0..block.columns.len()).for_each(|i| drop(block.column(i)));
            }
        }

        #[test]
        fn a_damaged_block_never_panics(at in any::<prop::sample::Index>(), byte: u8) {
            let rows: Vec<_> = (0..600).map(|i| {
                let mut row = Vec::new();
                put_cell(&mut row, Cell::Int(i));
                put_cell(&mut row, Cell::Text("name"));
                (i, i * 1000, row)
            }).collect();
            let mut plain = seal(&rows, 2);
            let at = at.index(plain.len());
            plain[at] = byte;
            if let Ok(block) = Block::parse(&plain) {
                let _ = (block.sequences(), block.times());
                (0..block.columns.len()).for_each(|i| drop(block.column(i)));
            }
        }
    }

    #[test]
    fn a_full_block_of_different_values_comes_back() {
        let rows: Vec<_> = (0..MAX_ROWS as i64)
            .map(|i| {
                let mut row = Vec::new();
                put_cell(&mut row, Cell::Int(i * i));
                (i, i, row)
            })
            .collect();
        let plain = seal(&rows, 1);
        let column = Block::parse(&plain).unwrap().column(0).unwrap();
        assert!((0..MAX_ROWS).all(|i| column.cell(i) == Cell::Int((i * i) as i64)));
    }
}
