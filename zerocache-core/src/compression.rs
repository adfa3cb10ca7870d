//! Compression of values by their writers: an LZ4 block after the decompressed size as four bytes,
//! little-endian. Readers decompress; nodes store compressed values as they are.

#[cfg(feature = "lz4")]
use alloc::{vec, vec::Vec};

use bytes::Bytes;
#[cfg(feature = "lz4")]
use lz4_flex::block;

use crate::limits::VALUE_BYTES_WIRE_MAX;

/// The largest decompressed value in bytes: as large as the largest value on the wire.
pub const DECOMPRESSED_BYTES_MAX: usize = VALUE_BYTES_WIRE_MAX;

/// The least saving as a fraction of the value (1/8). With less, decompression costs readers more than it
/// is worth.
#[cfg(feature = "lz4")]
const SAVED_FRACTION: usize = 8;

/// The length of the size prefix in bytes.
const SIZE_BYTES: usize = 4;

/// The most bytes that one byte of an LZ4 block can stand for. A forged size allocates no more memory than
/// its block could fill.
const RATIO_MAX: usize = 255;

/// Bytes that cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decompress the value")]
pub struct DecompressError;

/// Compresses a value. Returns `None` unless the result is smaller by an eighth at least.
#[cfg(feature = "lz4")]
#[must_use]
pub fn compress(value: &[u8]) -> Option<Bytes> {
    let size = u32::try_from(value.len()).ok().filter(|_| value.len() <= DECOMPRESSED_BYTES_MAX)?;
    let mut compressed: Vec<u8> = vec![0; SIZE_BYTES + block::get_maximum_output_size(value.len())];
    compressed[..SIZE_BYTES].copy_from_slice(&size.to_le_bytes());
    let used = SIZE_BYTES + block::compress_into(value, &mut compressed[SIZE_BYTES..]).ok()?;
    if used > value.len() - value.len() / SAVED_FRACTION {
        return None;
    }
    // Copied, so that the buffer for the worst case is freed.
    Some(Bytes::copy_from_slice(&compressed[..used]))
}

/// Returns `None`: without the feature `lz4` no value is compressed.
#[cfg(not(feature = "lz4"))]
#[must_use]
pub fn compress(_value: &[u8]) -> Option<Bytes> {
    None
}

/// Returns the decompressed size, which is no more than the block can fill.
///
/// # Errors
/// [`DecompressError`] if the value is damaged or too large.
pub fn decompressed_bytes(compressed: &[u8]) -> Result<usize, DecompressError> {
    let (size, block) = compressed.split_first_chunk::<SIZE_BYTES>().ok_or(DecompressError)?;
    let size = u32::from_le_bytes(*size) as usize;
    let is_sound = size <= DECOMPRESSED_BYTES_MAX && size / RATIO_MAX <= block.len();
    if is_sound { Ok(size) } else { Err(DecompressError) }
}

/// Decompresses a value. Allocates no more memory than the block can fill.
///
/// # Errors
/// [`DecompressError`] if the value is damaged or too large.
#[cfg(feature = "lz4")]
pub fn decompress(compressed: &[u8]) -> Result<Bytes, DecompressError> {
    let size = decompressed_bytes(compressed)?;
    let block = &compressed[SIZE_BYTES..];
    let mut value = vec![0; size];
    match block::decompress_into(block, &mut value) {
        Ok(used) if used == size => Ok(Bytes::from(value)),
        Ok(_) | Err(_) => Err(DecompressError),
    }
}

/// Fails: without the feature `lz4` no value can be decompressed.
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
    fn compressed_values_are_smaller_and_decompress_to_the_same() {
        for value in [vec![0; 100_000], b"one of many ".repeat(500), noise(64).repeat(20)] {
            let compressed = compress(&value).unwrap();
            assert!(compressed.len() <= value.len() - value.len() / SAVED_FRACTION);
            assert_eq!(decompress(&compressed).unwrap(), value);
        }
    }

    #[test]
    fn incompressible_values_are_not_compressed() {
        for value in [noise(100_000), b"short".to_vec(), Vec::new()] {
            assert_eq!(compress(&value), None);
        }
    }

    #[test]
    fn damaged_values_and_forged_sizes_are_errors() {
        let value = b"one of many ".repeat(500);
        let compressed = compress(&value).unwrap();
        for cut in [0, 3, 4, 5, compressed.len() / 2, compressed.len() - 1] {
            assert_eq!(decompress(&compressed[..cut]), Err(DecompressError), "{cut}");
        }
        for size in [0, value.len() - 1, value.len() + 1, 1 << 30, u32::MAX as usize] {
            let mut forged = compressed.to_vec();
            forged[..SIZE_BYTES].copy_from_slice(&(size as u32).to_le_bytes());
            assert_eq!(decompress(&forged), Err(DecompressError), "{size}");
        }
        let longer = [&compressed[..], b"!"].concat();
        assert_ne!(decompress(&longer).as_deref(), Ok(&value[..]));
    }
}
