//! Compressed bytes with their length before them: what blocks, chunks and intervals' rows are kept in.
//!
//! `kind (1 byte), length of the plain bytes (u32), bytes`; kind 0 is plain, 1 one zstd frame. The length bounds what a
//! damaged file can ask for.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::wire::Malformed;

/// Most plain bytes. What is stored is far smaller.
pub(super) const MAX_PLAIN: usize = 64 << 20;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const HEADER: usize = 5;
/// Shorter bytes are kept as they are.
const WORTH: usize = 64;

pub(super) fn deflate(plain: &[u8], compressor: &mut Compressor<'_>) -> io::Result<Vec<u8>> {
    let length = u32::try_from(plain.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let packed = if plain.len() < WORTH { None } else { Some(compressor.compress(plain)?).filter(|p| p.len() < plain.len()) };
    let (kind, bytes) = packed.as_deref().map_or((PLAIN, plain), |packed| (ZSTD, packed));
    let mut framed = Vec::with_capacity(HEADER + bytes.len());
    framed.push(kind);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(bytes);
    Ok(framed)
}

/// Puts the plain bytes into `plain`, in place of what is there.
pub(super) fn inflate(framed: &[u8], decompressor: &mut Decompressor<'_>, plain: &mut Vec<u8>) -> Result<(), Malformed> {
    let (&[kind, a, b, c, d], bytes) = framed.split_first_chunk::<HEADER>().ok_or("it is shorter than its header")?;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    plain.clear();
    match kind {
        PLAIN => plain.extend_from_slice(bytes),
        ZSTD if length > MAX_PLAIN => return Err("it claims to be longer than anything that is stored"),
        ZSTD => {
            plain.reserve(length);
            decompressor.decompress_to_buffer(bytes, plain).map_err(|_| "it does not decompress")?;
        }
        _ => return Err("it has an unknown kind"),
    }
    if plain.len() == length { Ok(()) } else { Err("it has not the length that it claims") }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back_as_they_were(plain in vec(any::<u8>(), 0..2000)) {
            let framed = deflate(&plain, &mut Compressor::new(1).unwrap()).unwrap();
            let mut found = vec![7; 9];
            prop_assert_eq!(inflate(&framed, &mut Decompressor::new().unwrap(), &mut found), Ok(()));
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn any_bytes_inflate_or_fail_within_bounds(mut bytes: Vec<u8>, kind in 0..3u8) {
            let mut plain = Vec::new();
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = inflate(&bytes, &mut Decompressor::new().unwrap(), &mut plain);
            prop_assert!(plain.capacity() <= 2 * MAX_PLAIN);
        }
    }
}
