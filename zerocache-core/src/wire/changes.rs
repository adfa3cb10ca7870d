//! What a node tells those that follow it: which keys changed.

use alloc::vec::Vec;

use super::{
    field::{DecodeError, Field, Writer},
    repair::{read_numbers, write_numbers},
};

/// Most rows of one answer.
pub const CHANGES_MAX: usize = 8_192;

/// A change: the key in short, as [`KeyHash::short`](crate::key::KeyHash::short) has it, and the stamp of
/// the version that it has now.
pub type ChangeRow = (u64, u64);

pub(super) fn write_changes(out: &mut Writer<'_>, tag: u32, rows: &[ChangeRow]) {
    let numbers: Vec<u64> = rows.iter().flat_map(|(key, stamp)| [*key, *stamp]).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_changes(field: &Field<'_>) -> Result<Vec<ChangeRow>, DecodeError> {
    let numbers = read_numbers(field, 2 * CHANGES_MAX)?;
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(field.invalid());
    }
    Ok(pairs.map(|pair| (pair[0], pair[1])).collect())
}
