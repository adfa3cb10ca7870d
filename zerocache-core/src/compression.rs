//! Values that are packed by their writer and unpacked by their reader: an LZ4 block after the
//! unpacked size as four bytes, low end first. Nodes keep them as they are.

#[cfg(feature = "lz4")]
use alloc::{vec, vec::Vec};

use bytes::Bytes;
#[cfg(feature = "lz4")]
use lz4_flex::block;

use crate::limits::VALUE_BYTES_WIRE_MAX;

/// The largest unpacked value in bytes: as large as the largest value on the wire.
pub const DECOMPRESSED_BYTES_MAX: usize = VALUE_BYTES_WIRE_MAX;

/// A packed value is kept when it is smaller by at least this part of the plain one (1/8): below that
/// readers pay for little.
#[cfg(feature = "lz4")]
const SAVED_PART: usize = 8;

/// The bytes of the size in front.
const SIZE_BYTES: usize = 4;

/// One byte of an LZ4 block stands for at most this many bytes, so that a forged size takes no more
/// memory than its block could fill.
const RATIO_MAX: usize = 255;

/// Bytes that do not unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not unpack")]
pub struct DecompressError;

/// The packed form of `value`, if that is clearly smaller.
#[cfg(feature = "lz4")]
#[must_use]
pub fn compress(value: &[u8]) -> Option<Bytes> {
    let size = u32::try_from(value.len()).ok().filter(|_| value.len() <= DECOMPRESSED_BYTES_MAX)?;
    let mut packed: Vec<u8> = vec![0; SIZE_BYTES + block::get_maximum_output_size(value.len())];
    packed[..SIZE_BYTES].copy_from_slice(&size.to_le_bytes());
    let used = SIZE_BYTES + block::compress_into(value, &mut packed[SIZE_BYTES..]).ok()?;
    if used > value.len() - value.len() / SAVED_PART {
        return None;
    }
    // Without the room that the worst case would have taken.
    Some(Bytes::copy_from_slice(&packed[..used]))
}

/// Without the feature `lz4` no value is packed.
#[cfg(not(feature = "lz4"))]
#[must_use]
pub fn pack(_value: &[u8]) -> Option<Bytes> {
    None
}

/// How many bytes the value has that was packed; no more than its block can fill.
///
/// # Errors
/// [`DecompressError`] when it is damaged or too large.
pub fn decompressed_bytes(packed: &[u8]) -> Result<usize, DecompressError> {
    let (size, block) = packed.split_first_chunk::<SIZE_BYTES>().ok_or(DecompressError)?;
    let size = u32::from_le_bytes(*size) as usize;
    let is_sound = size <= DECOMPRESSED_BYTES_MAX && size / RATIO_MAX <= block.len();
    if is_sound { Ok(size) } else { Err(DecompressError) }
}

/// The value that was packed. No more memory is taken than the block can fill.
///
/// # Errors
/// [`DecompressError`] when it is damaged or too large.
#[cfg(feature = "lz4")]
pub fn decompress(packed: &[u8]) -> Result<Bytes, DecompressError> {
    let size = decompressed_bytes(packed)?;
    let block = &packed[SIZE_BYTES..];
    let mut value = vec![0; size];
    match block::decompress_into(block, &mut value) {
        Ok(used) if used == size => Ok(Bytes::from(value)),
        Ok(_) | Err(_) => Err(DecompressError),
    }
}

/// Without the feature `lz4` no value can be decompressed.
///
/// # Errors
/// Always [`DecompressError`].
#[cfg(not(feature = "lz4"))]
pub fn decompress(_packed: &[u8]) -> Result<Bytes, DecompressError> {
    Err(DecompressError)
}

#[cfg(all(test, feature = "lz4"))]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn what_is_packed_is_smaller_and_unpacks_to_the_same() {
        for value in [vec![0; 100_000], b"one of many ".repeat(500), noise(64).repeat(20)] {
            let packed = compress(&value).unwrap();
            assert!(packed.len() <= value.len() - value.len() / SAVED_PART);
            assert_eq!(decompress(&packed).unwrap(), value);
        }
    }

    #[test]
    fn what_does_not_become_smaller_stays_as_it_is() {
        for value in [noise(100_000), b"short".to_vec(), Vec::new()] {
            assert_eq!(compress(&value), None);
        }
    }

    #[test]
    fn damage_and_forged_sizes_are_errors() {
        let value = b"one of many ".repeat(500);
        let packed = compress(&value).unwrap();
        for cut in [0, 3, 4, 5, packed.len() / 2, packed.len() - 1] {
            assert_eq!(decompress(&packed[..cut]), Err(DecompressError), "{cut}");
        }
        for size in [0, value.len() - 1, value.len() + 1, 1 << 30, u32::MAX as usize] {
            let mut forged = packed.to_vec();
            forged[..SIZE_BYTES].copy_from_slice(&(size as u32).to_le_bytes());
            assert_eq!(decompress(&forged), Err(DecompressError), "{size}");
        }
        let longer = [&packed[..], b"!"].concat();
        assert_ne!(decompress(&longer).as_deref(), Ok(&value[..]));
    }
}
