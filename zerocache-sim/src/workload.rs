//! What clients do, and values that say which write they come from.

use bytes::Bytes;
use zerocache_core::{key::Key, ttl::Ttl, wire::Ack};

use crate::{
    plan::Workload,
    random::{Random, splitmix},
};

/// Names one write by a client; 0 is none.
pub type WriteId = u64;

/// The shortest value: the name of its write.
const VALUE_BYTES_MIN: u64 = 8;

/// Lifetimes of puts that are to expire within a run, in milliseconds.
const SHORT_MS: [u64; 5] = [1_000, 1_500, 2_000, 4_000, 8_000];

/// Other lifetimes.
const LONG_MS: [u64; 3] = [30_000, 3_600_000, 99_999_999_000];

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get,
    /// Writes a value of this many bytes.
    Put {
        /// The bytes of the value.
        bytes: usize,
        /// How long it lives.
        ttl: Ttl,
        /// Who must have it.
        ack: Ack,
    },
    /// Deletes a key.
    Delete {
        /// Who must know.
        ack: Ack,
    },
}

impl Operation {
    /// The next operation of a client and its key.
    pub fn draw(random: &mut Random, workload: &Workload) -> (usize, Self) {
        // The lower of two: some keys are used more often than others.
        let key = random.index(workload.keys).min(random.index(workload.keys));
        let kind = random.below(1_000);
        let ack = *random.pick(&[Ack::Local, Ack::Local, Ack::Region, Ack::All]);
        let operation = if kind < workload.put_permille {
            let bytes = random.between(VALUE_BYTES_MIN, workload.value_bytes_max) as usize;
            let short = random.chance(workload.short_permille);
            let ms = *random.pick(if short { &SHORT_MS[..] } else { &LONG_MS[..] });
            let ttl = Ttl::from_millis(ms).unwrap_or(Ttl::MAX);
            Self::Put { bytes, ttl, ack }
        } else if kind < workload.put_permille + workload.delete_permille {
            Self::Delete { ack }
        } else {
            Self::Get
        };
        (key, operation)
    }
}

/// The keys of a run.
#[must_use]
pub fn keys(count: usize) -> Vec<Key> {
    let key = |n: usize| Key::within(Bytes::from(format!("key/{n}")), 64);
    (0..count).filter_map(|n| key(n).ok()).collect()
}

/// The number of a key that [`keys`] made.
#[must_use]
pub fn number_of(key: &Key) -> Option<usize> {
    core::str::from_utf8(key.as_bytes()).ok()?.strip_prefix("key/")?.parse().ok()
}

/// The value of a write: its name, and bytes that follow from it.
#[must_use]
pub fn value(id: WriteId, bytes: usize) -> Bytes {
    let mut all = Vec::with_capacity(bytes + 8);
    all.extend_from_slice(&id.to_le_bytes());
    let mut state = id;
    while all.len() < bytes {
        all.extend_from_slice(&splitmix(&mut state).to_le_bytes());
    }
    all.truncate(bytes);
    Bytes::from(all)
}

/// The write that a value says it comes from.
#[must_use]
pub fn write_of(value: &[u8]) -> Option<WriteId> {
    value.first_chunk().map(|id| u64::from_le_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_their_write() {
        for bytes in [8, 9, 100, 2_000] {
            let value = value(77, bytes);
            assert_eq!((value.len(), write_of(&value)), (bytes, Some(77)));
        }
        assert_eq!(write_of(b"short"), None);
        assert_eq!(number_of(&keys(12)[11]), Some(11));
    }
}
