//! A block: some thousand sealed events of one table, one column after the other.
//!
//! ```text
//! block      = version (1 byte), length of the plain bytes (u32), zstd frame of them
//! plain      = rows, columns (varints), sequences, times (sections of signed varints, each the difference to the one before), column…
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
use zstd::bulk::{Compressor, Decompressor};

use super::{
    filter,
    wire::{Input, Malformed, put_cell, put_section, put_signed, put_varint},
};
use crate::{cell::Cell, time::Nanos};

/// Most rows of a block: their codes fit two bytes.
pub(super) const MAX_ROWS: usize = 4096;
/// Most plain bytes of a block. What is sealed is far smaller; this bounds what a damaged file can ask for.
const MAX_PLAIN: usize = 64 << 20;
const VERSION: u8 = 1;
const HEADER: usize = 5;

/// A block in the making; it borrows the rows.
#[derive(Debug)]
pub(super) struct BlockBuilder<'a> {
    rows: usize,
    sequences: Vec<u8>,
    times: Vec<u8>,
    last_sequence: i64,
    last_time: Nanos,
    columns: Vec<ColumnBuilder<'a>>,
}

impl<'a> BlockBuilder<'a> {
    pub(super) fn new(columns: usize) -> Self {
        let columns = (0..columns).map(|_| ColumnBuilder::default()).collect();
        Self { rows: 0, sequences: Vec::new(), times: Vec::new(), last_sequence: 0, last_time: 0, columns }
    }

    /// Adds a row of encoded cells. What it lacks, or what is damaged, is NULL: one row must not keep the others from being sealed.
    pub(super) fn push(&mut self, sequence: i64, time_ns: Nanos, row: &'a [u8]) {
        put_signed(&mut self.sequences, sequence.wrapping_sub(self.last_sequence));
        put_signed(&mut self.times, time_ns.wrapping_sub(self.last_time));
        (self.last_sequence, self.last_time) = (sequence, time_ns);
        let mut cells = Input::new(row);
        for column in &mut self.columns {
            column.push(cells.cell().unwrap_or_else(|_| {
                cells = Input::new(&[]);
                Cell::Null
            }));
        }
        self.rows += 1;
    }

    /// The filters of the columns at `positions`.
    pub(super) fn filters(&self, positions: &[usize]) -> Vec<u8> {
        let mut filters = Vec::new();
        for &position in positions {
            filter::put(&mut filters, position, self.columns[position].known.keys().map(|cell| filter::hash(*cell)).collect());
        }
        filters
    }

    /// The block's bytes.
    pub(super) fn finish(self, compressor: &mut Compressor<'_>) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        put_varint(&mut plain, self.rows as u64);
        put_varint(&mut plain, self.columns.len() as u64);
        put_section(&mut plain, &self.sequences);
        put_section(&mut plain, &self.times);
        for column in self.columns {
            column.finish(&mut plain);
        }
        let length = u32::try_from(plain.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        let mut block = vec![VERSION];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&compressor.compress(&plain)?);
        Ok(block)
    }
}

#[derive(Debug, Default)]
struct ColumnBuilder<'a> {
    known: HashMap<Cell<'a>, u16, RandomState>,
    dictionary: Vec<u8>,
    last_int: i64,
    /// The row before, which most columns repeat, and its code.
    last: Option<(Cell<'a>, u16)>,
    codes: Vec<u16>,
}

impl<'a> ColumnBuilder<'a> {
    fn push(&mut self, cell: Cell<'a>) {
        if let Some((last, code)) = self.last
            && last == cell
        {
            self.codes.push(code);
            return;
        }
        let next = u16::try_from(self.known.len() + 1).unwrap_or(u16::MAX);
        let code = match self.known.entry(cell) {
            Entry::Occupied(known) => {
                self.codes.push(*known.get());
                *known.get()
            }
            Entry::Vacant(new) => {
                new.insert(next);
                self.codes.push(0);
                self.put_entry(cell);
                next
            }
        };
        self.last = Some((cell, code));
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

/// Puts the plain bytes of a block into `plain`.
pub(super) fn inflate(block: &[u8], decompressor: &mut Decompressor<'_>, plain: &mut Vec<u8>) -> Result<(), Malformed> {
    let (header, frame) = block.split_first_chunk::<HEADER>().ok_or("a block is shorter than its header")?;
    let [VERSION, a, b, c, d] = *header else { return Err("a block has an unknown version") };
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > MAX_PLAIN {
        return Err("a block claims to be longer than blocks are");
    }
    plain.clear();
    plain.reserve(length);
    let found = decompressor.decompress_to_buffer(frame, plain).map_err(|_| "a block does not decompress")?;
    if found == length { Ok(()) } else { Err("a block has not the length that it claims") }
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
        let mut builder = BlockBuilder::new(columns);
        rows.iter().for_each(|(sequence, time, row)| builder.push(*sequence, *time, row));
        builder.finish(&mut Compressor::new(3).unwrap()).unwrap()
    }

    fn opened(block: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        inflate(block, &mut Decompressor::new().unwrap(), &mut plain).unwrap();
        plain
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(rows in vec((any::<i64>(), any::<i64>(), vec(any_cell(), 3)), 0..300)) {
            let encoded: Vec<_> = rows.iter().map(|(sequence, time, cells)| {
                let mut row = Vec::new();
                cells.iter().for_each(|c| put_cell(&mut row, cell(c)));
                (*sequence, *time, row)
            }).collect();
            let plain = opened(&seal(&encoded, 3));
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
        fn any_plain_bytes_are_a_block_or_an_error(plain: Vec<u8>) {
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
            let mut plain = opened(&seal(&rows, 2));
            let at = at.index(plain.len());
            plain[at] = byte;
            if let Ok(block) = Block::parse(&plain) {
                let _ = (block.sequences(), block.times());
                (0..block.columns.len()).for_each(|i| drop(block.column(i)));
            }
        }

        #[test]
        fn any_bytes_inflate_or_fail_within_bounds(mut bytes: Vec<u8>) {
            let mut plain = Vec::new();
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = inflate(&bytes, &mut Decompressor::new().unwrap(), &mut plain);
            prop_assert!(plain.capacity() <= 2 * MAX_PLAIN);
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
        let plain = opened(&seal(&rows, 1));
        let column = Block::parse(&plain).unwrap().column(0).unwrap();
        assert!((0..MAX_ROWS).all(|i| column.cell(i) == Cell::Int((i * i) as i64)));
    }
}
