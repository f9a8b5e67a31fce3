//! Which keys a block contains, so that a query for a key opens only the blocks that have it.
//!
//! For each join key column: the sorted 32-bit hashes of its values. A hash that is there by chance costs one block
//! opened in vain. Bytes: for each column its position and a section of little-endian hashes.

use super::wire::{Input, Malformed, put_section, put_varint};
use crate::cell::Cell;

/// FNV-1a folded to 32 bits: it is part of the file format and must not change. A missing value hashes as an empty text.
pub(super) fn hash(cell: Cell<'_>) -> u32 {
    let fold = |bytes: &[u8]| bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let hash = match cell {
        Cell::Null => fold(&[]),
        Cell::Int(value) => fold(&value.to_le_bytes()),
        Cell::Text(text) => fold(text.as_bytes()),
    };
    let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h])
}

/// Adds the filter of one column.
pub(super) fn put(out: &mut Vec<u8>, position: usize, mut hashes: Vec<u32>) {
    hashes.sort_unstable();
    hashes.dedup();
    let bytes: Vec<u8> = hashes.iter().flat_map(|h| h.to_le_bytes()).collect();
    put_varint(out, position as u64);
    put_section(out, &bytes);
}

/// Whether a block may have one of `hashes` in the column at `position`; true where it has no filter for it.
pub(super) fn may_contain(filters: &[u8], position: usize, hashes: &[u32]) -> Result<bool, Malformed> {
    let mut input = Input::new(filters);
    while input.len() > 0 {
        let column = input.varint()?;
        let (sorted, _) = input.section()?.as_chunks::<4>();
        if column == position as u64 {
            return Ok(hashes.iter().any(|h| sorted.binary_search_by_key(h, |bytes| u32::from_le_bytes(*bytes)).is_ok()));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_denies_a_key_that_is_there(values: Vec<String>, position in 0usize..3) {
            let mut filters = Vec::new();
            for column in 0..2 {
                put(&mut filters, column, values.iter().map(|v| hash(Cell::Text(v))).collect());
            }
            for value in &values {
                prop_assert_eq!(may_contain(&filters, position, &[hash(Cell::Text(value))]), Ok(true));
            }
        }

        #[test]
        fn any_bytes_are_a_filter_or_an_error(bytes: Vec<u8>, position: usize) {
            let _ = may_contain(&bytes, position, &[7]);
        }
    }

    #[test]
    fn denies_a_key_that_is_not_there() {
        let mut filters = Vec::new();
        put(&mut filters, 0, vec![hash(Cell::Text("here"))]);
        assert_eq!(may_contain(&filters, 0, &[hash(Cell::Text("there"))]), Ok(false));
        assert_eq!(may_contain(&filters, 0, &[hash(Cell::Int(5)), hash(Cell::Text("here"))]), Ok(true));
    }
}
