//! The bytes that rows and blocks are made of: varints and cells.
//!
//! A cell is a varint header: 0 is NULL, 1 an integer (a zigzag varint follows), `n + 2` a text of `n` bytes. Reading is
//! bounded by the input and never trusts it: the file may be damaged or hostile.

use crate::cell::Cell;

/// Why bytes could not be read.
pub(super) type Malformed = &'static str;

const INT: u64 = 1;
const TEXT: u64 = 2;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(super) fn put_cell(out: &mut Vec<u8>, cell: Cell<'_>) {
    match cell {
        Cell::Null => out.push(0),
        Cell::Int(value) => {
            put_varint(out, INT);
            put_signed(out, value);
        }
        Cell::Text(text) => {
            put_varint(out, text.len() as u64 + TEXT);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// A length and the bytes, so that a reader can step over them.
pub(super) fn put_section(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err("a number does not end")
    }

    pub(super) fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of things that are each at least one byte of `self`.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let n = self.varint()?;
        usize::try_from(n).ok().filter(|n| *n <= self.0.len()).ok_or("a count is larger than its bytes")
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn section(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.count()?;
        self.take(n)
    }

    fn text(&mut self, header: u64) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(header - TEXT).map_err(|_| "a text is too long")?;
        self.take(n)
    }

    pub(super) fn cell(&mut self) -> Result<Cell<'a>, Malformed> {
        match self.varint()? {
            0 => Ok(Cell::Null),
            INT => Ok(Cell::Int(self.signed()?)),
            header => Ok(Cell::Text(str::from_utf8(self.text(header)?).map_err(|_| "a text is not UTF-8")?)),
        }
    }

    /// Steps over a cell without looking into it.
    pub(super) fn skip_cell(&mut self) -> Result<(), Malformed> {
        match self.varint()? {
            0 => Ok(()),
            INT => self.varint().map(drop),
            header => self.text(header).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cell_comes_back_as_it_was(int: i64, text: String) {
            let cells = [Cell::Null, Cell::Int(int), Cell::Text(&text), Cell::Text(""), Cell::Int(i64::MIN)];
            let mut bytes = Vec::new();
            cells.iter().for_each(|c| put_cell(&mut bytes, *c));
            let (mut read, mut skipped) = (Input::new(&bytes), Input::new(&bytes));
            for cell in cells {
                prop_assert_eq!(read.cell(), Ok(cell));
                prop_assert_eq!(skipped.skip_cell(), Ok(()));
            }
            prop_assert_eq!((read.len(), skipped.len()), (0, 0));
        }

        #[test]
        fn any_bytes_end_in_a_value_or_an_error(bytes: Vec<u8>) {
            let mut input = Input::new(&bytes);
            while input.len() > 0 && input.cell().is_ok() {}
        }
    }
}
