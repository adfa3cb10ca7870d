//! The operations of clients, and values that name their write.

use std::collections::BTreeSet;

use bytes::Bytes;
use zerocache_core::{key::Key, ttl::Ttl, wire::Ack};

use crate::{
    plan::Workload,
    purges::key_prefix,
    random::{Random, splitmix},
};

/// Names one write by a client; 0 is none.
pub type WriteId = u64;

/// The shortest value: the name of its write.
const VALUE_BYTES_MIN: u64 = 8;

/// Lifetimes of puts that are to expire within a run, in milliseconds.
const SHORT_MS: [u64; 5] = [1_000, 1_500, 2_000, 4_000, 8_000];

/// Of a thousand computations so many are of clients that cannot use the value that there is.
const NEEDS_NEWER_PERMILLE: u64 = 150;

/// Most keys of an operation on many.
const MANY_KEYS_MAX: u64 = 12;

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
        /// Its TTL.
        ttl: Ttl,
        /// The required acknowledgement.
        ack: Ack,
    },
    /// Deletes a key.
    Delete {
        /// The required acknowledgement.
        ack: Ack,
    },
    /// Ends the values of many keys; the key is that of the register.
    Purge(Ack),
    /// Reads keys together.
    GetMany(Vec<usize>),
    /// Puts or deletes keys together.
    WriteMany(Vec<(usize, Operation)>),
    /// Computes a value under a lease, or waits for one who does.
    Compute(Computation),
    /// Writes a key on a condition.
    WriteIf(ConditionalPlan),
}

/// A write on a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionalPlan {
    /// The condition, and what is written.
    pub kind: ConditionalKind,
    /// The bytes of a value.
    pub bytes: usize,
    /// Its TTL.
    pub ttl: Ttl,
    /// The required acknowledgement.
    pub ack: Ack,
}

/// The condition and the change of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionalKind {
    /// Puts a value if there is none.
    PutAbsent,
    /// Puts a value if the stored one has the version that the client knows.
    PutVersion,
    /// Deletes the value if it has the version that the client knows.
    DeleteVersion,
    /// Deletes the value, and returns it.
    Take,
}

impl ConditionalKind {
    /// Whether it writes a value.
    #[must_use]
    pub const fn is_put(self) -> bool {
        matches!(self, Self::PutAbsent | Self::PutVersion)
    }
}

impl ConditionalPlan {
    fn draw(random: &mut Random, workload: &Workload, ack: Ack) -> Self {
        let (bytes, ttl) = draw_value(random, workload);
        let kind = match random.below(100) {
            0..25 => ConditionalKind::PutAbsent,
            25..75 => ConditionalKind::PutVersion,
            75..85 => ConditionalKind::DeleteVersion,
            _ => ConditionalKind::Take,
        };
        Self { kind, bytes, ttl, ack }
    }
}

/// A computation under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computation {
    /// The bytes of the value.
    pub bytes: usize,
    /// The TTL of the value.
    pub ttl: Ttl,
    /// The required acknowledgement.
    pub ack: Ack,
    /// The requested duration of the lease, in milliseconds.
    pub lease_ms: u64,
    /// The longest wait for another holder, in milliseconds.
    pub wait_ms: u64,
    /// Its client cannot use the value that it knows.
    pub needs_newer: bool,
    /// Its duration, in microseconds.
    pub duration_us: u64,
    /// Its end.
    pub end: ComputationEnd,
}

/// The end of a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputationEnd {
    /// Its value is written.
    Written,
    /// Its connections end, and then its value is written.
    Disconnected,
    /// Its connections end, and nothing comes of it.
    Dead,
    /// Nothing comes of it.
    Abandoned,
    /// The lease is released for the next caller.
    Released,
    /// The lease is released as failed, for no other caller.
    Failed,
}

impl Operation {
    /// The next operation of a client and its key.
    pub fn draw(random: &mut Random, workload: &Workload) -> (usize, Self) {
        if workload.many_permille > 0 && random.chance(workload.many_permille) {
            return (0, Self::draw_many(random, workload));
        }
        let key = draw_key(random, workload);
        let kind = random.below(1_000);
        let ack = *random.pick(&[Ack::Local, Ack::Local, Ack::Region, Ack::All]);
        let written_permille = workload.put_permille + workload.delete_permille;
        let operation = if kind < workload.put_permille {
            let (bytes, ttl) = draw_value(random, workload);
            Self::Put { bytes, ttl, ack }
        } else if kind < written_permille {
            Self::Delete { ack }
        } else if kind < written_permille + workload.compute_permille {
            Self::Compute(Computation::draw(random, workload, ack))
        } else if kind < written_permille + workload.compute_permille + workload.condition_permille
        {
            Self::WriteIf(ConditionalPlan::draw(random, workload, ack))
        } else {
            Self::Get
        };
        (key, operation)
    }

    /// An operation on some keys, each of which is in it once.
    fn draw_many(random: &mut Random, workload: &Workload) -> Self {
        let drawn: BTreeSet<_> =
            (0..random.between(1, MANY_KEYS_MAX)).map(|_| draw_key(random, workload)).collect();
        let ack = *random.pick(&[Ack::Local, Ack::Local, Ack::Region, Ack::All]);
        let written_permille = workload.put_permille + workload.delete_permille;
        match random.below(1_000) {
            kind if kind < workload.put_permille => {
                let put = |key| {
                    let (bytes, ttl) = draw_value(random, workload);
                    (key, Self::Put { bytes, ttl, ack })
                };
                Self::WriteMany(drawn.into_iter().map(put).collect())
            }
            kind if kind < written_permille => {
                Self::WriteMany(drawn.into_iter().map(|key| (key, Self::Delete { ack })).collect())
            }
            _ => Self::GetMany(drawn.into_iter().collect()),
        }
    }
}

/// A key: the lower of two, so that some are used more often than others.
fn draw_key(random: &mut Random, workload: &Workload) -> usize {
    random.index(workload.keys).min(random.index(workload.keys))
}

impl Computation {
    fn draw(random: &mut Random, workload: &Workload, ack: Ack) -> Self {
        let (bytes, ttl) = draw_value(random, workload);
        let end = match random.below(100) {
            0..70 => ComputationEnd::Written,
            70..76 => ComputationEnd::Disconnected,
            76..82 => ComputationEnd::Dead,
            82..88 => ComputationEnd::Abandoned,
            88..94 => ComputationEnd::Released,
            _ => ComputationEnd::Failed,
        };
        Self {
            bytes,
            ttl,
            ack,
            lease_ms: *random.pick(&[300, 1_000, 5_000, 10_000]),
            wait_ms: *random.pick(&[0, 200, 1_000, 3_000]),
            needs_newer: random.chance(NEEDS_NEWER_PERMILLE),
            duration_us: *random.pick(&[5_000, 100_000, 500_000, 3_000_000]),
            end,
        }
    }
}

/// The size of a value and its lifetime.
fn draw_value(random: &mut Random, workload: &Workload) -> (usize, Ttl) {
    let bytes = random.between(VALUE_BYTES_MIN, workload.value_bytes_max) as usize;
    let short = random.chance(workload.short_permille);
    let ms = *random.pick(if short { &SHORT_MS[..] } else { &LONG_MS[..] });
    (bytes, Ttl::from_millis(ms).unwrap_or(Ttl::MAX))
}

/// The keys of a run, of which some are those of memoized results if there are purges.
#[must_use]
pub fn keys(count: usize, has_purges: bool) -> Vec<Key> {
    let key = |n: usize| {
        let mut bytes = if has_purges { key_prefix(n) } else { Vec::new() };
        bytes.extend_from_slice(format!("key/{n}").as_bytes());
        Key::within(Bytes::from(bytes), 64)
    };
    (0..count).filter_map(|n| key(n).ok()).collect()
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

/// Returns the write that a value names.
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
    }
}
