//! Rows of the change feed: a node sends its followers the keys that changed.

use alloc::vec::Vec;

use super::{
    field::{DecodeError, Field, Writer},
    repair::{read_numbers, write_numbers},
};

/// The most changes in one response.
pub const CHANGES_MAX: usize = 8_192;

/// A change: the key as [`KeyHash::short`](crate::key::KeyHash::short), and the stamp of its new version.
pub type KeyChange = (u64, u64);

pub(super) fn write_changes(out: &mut Writer<'_>, tag: u32, changes: &[KeyChange]) {
    let numbers: Vec<u64> = changes.iter().flat_map(|(key, stamp)| [*key, *stamp]).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_changes(field: &Field<'_>) -> Result<Vec<KeyChange>, DecodeError> {
    let numbers = read_numbers(field, 2 * CHANGES_MAX)?;
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(field.invalid());
    }
    Ok(pairs.map(|pair| (pair[0], pair[1])).collect())
}
