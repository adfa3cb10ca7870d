//! Rows of the change feed: a node sends its followers the keys that changed.

use alloc::vec::Vec;

use super::{
    field::{DecodeError, Field, Writer},
    repair::{read_numbers, write_numbers},
};
use crate::{purge::TargetId, version::Version};

/// The most changes in one response.
pub const CHANGES_MAX: usize = 8_192;

/// A change: the key as [`KeyHash::short`](crate::key::KeyHash::short), and the stamp of its new version.
pub type KeyChange = (u64, u64);

/// A row of the feed for those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRow {
    /// A value was stored.
    Written {
        /// The key as [`KeyHash::short`](crate::key::KeyHash::short).
        key: u64,
        /// Its new version.
        version: Version,
    },
    /// There is no value any more: it was deleted, or a tombstone or purge came instead of a value.
    Deleted {
        /// The key as [`KeyHash::short`](crate::key::KeyHash::short).
        key: u64,
        /// The version of the delete.
        version: Version,
    },
    /// Entries of a target ended.
    Purged {
        /// The target.
        target: TargetId,
        /// The stamp up to which they ended.
        stamp: u64,
    },
    /// What the rows before are about, back to the last one of another kind: an entry that belongs to this target, or
    /// belonged to it before the change.
    Target(TargetId),
}

/// The most bytes of a row on the wire.
pub const CHANGE_ROW_BYTES: usize = 25;

mod row {
    pub(super) const WRITTEN: u8 = 1;
    pub(super) const DELETED: u8 = 2;
    pub(super) const PURGED: u8 = 3;
    pub(super) const TARGET: u8 = 4;
}

pub(super) fn write_rows(out: &mut Writer<'_>, tag: u32, rows: &[ChangeRow]) {
    let mut bytes = Vec::with_capacity(CHANGE_ROW_BYTES * rows.len());
    for row in rows {
        let (kind, first) = match row {
            ChangeRow::Written { key, .. } => (row::WRITTEN, *key),
            ChangeRow::Deleted { key, .. } => (row::DELETED, *key),
            ChangeRow::Purged { target, .. } => (row::PURGED, target.0),
            ChangeRow::Target(target) => (row::TARGET, target.0),
        };
        bytes.push(kind);
        bytes.extend(first.to_be_bytes());
        match row {
            ChangeRow::Written { version, .. } | ChangeRow::Deleted { version, .. } => {
                bytes.extend(version.to_bytes());
            }
            ChangeRow::Purged { stamp, .. } => bytes.extend(stamp.to_be_bytes()),
            ChangeRow::Target(_) => {}
        }
    }
    out.bytes(tag, &bytes);
}

pub(super) fn read_rows(field: &Field<'_>) -> Result<Vec<ChangeRow>, DecodeError> {
    let (mut rows, mut rest) = (Vec::new(), field.content);
    while !rest.is_empty() {
        if rows.len() == CHANGES_MAX {
            return Err(DecodeError::TooMany(field.tag));
        }
        let row = read_row(&mut rest).ok_or_else(|| field.invalid())?;
        rows.push(row);
    }
    Ok(rows)
}

fn read_row(rest: &mut &[u8]) -> Option<ChangeRow> {
    let [kind] = take(rest)?;
    let first = u64::from_be_bytes(take(rest)?);
    Some(match kind {
        row::WRITTEN => {
            ChangeRow::Written { key: first, version: Version::from_bytes(take(rest)?) }
        }
        row::DELETED => {
            ChangeRow::Deleted { key: first, version: Version::from_bytes(take(rest)?) }
        }
        row::PURGED => {
            ChangeRow::Purged { target: TargetId(first), stamp: u64::from_be_bytes(take(rest)?) }
        }
        row::TARGET => ChangeRow::Target(TargetId(first)),
        _ => return None,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*first)
}

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

/// The changes of keys and the purges among rows.
pub(crate) fn keys_and_purges(rows: &[ChangeRow]) -> (Vec<KeyChange>, Vec<KeyChange>) {
    let (mut changes, mut purges) = (Vec::new(), Vec::new());
    for row in rows {
        match *row {
            ChangeRow::Written { key, version } | ChangeRow::Deleted { key, version } => {
                changes.push((key, version.stamp()));
            }
            ChangeRow::Purged { target, stamp } => purges.push((target.0, stamp)),
            ChangeRow::Target(_) => {}
        }
    }
    (changes, purges)
}
