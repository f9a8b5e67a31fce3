//! A chunk: the events that one transaction appended to one table, a row of its tail.
//!
//! Plain bytes: for each event the difference of its sequence number and of its time to those of the event before (signed
//! varints), and a section with its encoded cells. Events of a container repeat most of each other, so even quick compression
//! takes a burst to a tenth.

use super::{
    block::MAX_ROWS,
    wire::{Input, Malformed, put_section, put_signed},
};
use crate::time::Nanos;

/// A chunk of more plain bytes is ended.
const MAX_BYTES: usize = 4 << 20;

/// A chunk in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) plain: Vec<u8>,
    pub(super) rows: usize,
    pub(super) first_sequence: i64,
    pub(super) last_sequence: i64,
    last_ns: Nanos,
    pub(super) min_ns: Nanos,
    pub(super) max_ns: Nanos,
}

impl Chunk {
    pub(super) fn push(&mut self, sequence: i64, time_ns: Nanos, row: &[u8]) {
        if self.rows == 0 {
            (self.first_sequence, self.min_ns, self.max_ns) = (sequence, time_ns, time_ns);
        }
        put_signed(&mut self.plain, sequence.wrapping_sub(self.last_sequence));
        put_signed(&mut self.plain, time_ns.wrapping_sub(self.last_ns));
        put_section(&mut self.plain, row);
        (self.last_sequence, self.last_ns) = (sequence, time_ns);
        (self.min_ns, self.max_ns) = (self.min_ns.min(time_ns), self.max_ns.max(time_ns));
        self.rows += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= MAX_ROWS || self.plain.len() >= MAX_BYTES
    }

    /// Empties the chunk; its memory stays.
    pub(super) fn clear(&mut self) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        *self = Self { plain, ..Self::default() };
    }
}

/// An event of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRow<'a> {
    pub(super) sequence: i64,
    pub(super) time_ns: Nanos,
    pub(super) row: &'a [u8],
}

/// The events of a chunk's plain bytes; ends after an error.
pub(super) fn rows(plain: &[u8]) -> impl Iterator<Item = Result<ChunkRow<'_>, Malformed>> {
    let mut input = Input::new(plain);
    let (mut sequence, mut time_ns) = (0i64, 0);
    let mut next = move || {
        sequence = sequence.wrapping_add(input.signed()?);
        time_ns = Nanos::wrapping_add(time_ns, input.signed()?);
        Ok((ChunkRow { sequence, time_ns, row: input.section()? }, input.len()))
    };
    let mut left = plain.len();
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let found = next();
        left = found.as_ref().map_or(0, |f| f.1);
        Some(found.map(|f| f.0))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(events: Vec<(i64, i64, Vec<u8>)>) {
            let mut chunk = Chunk::default();
            events.iter().for_each(|(sequence, time_ns, row)| chunk.push(*sequence, *time_ns, row));
            let found: Vec<_> = rows(&chunk.plain).map(Result::unwrap).map(|r| (r.sequence, r.time_ns, r.row.to_vec())).collect();
            prop_assert_eq!(chunk.rows, events.len());
            prop_assert_eq!(found, events);
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(plain: Vec<u8>) {
            let found: Vec<_> = rows(&plain).collect();
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
