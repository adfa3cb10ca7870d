//! Encodes what follows the envelope.

use super::{
    Request,
    tags::{kind, tag},
};
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    purge::PurgeMode,
    time::Instant,
    version::{Basis, VersionSource},
    wire::{
        field::Writer,
        repair::{
            KEY_VERSION_BYTES, Resolution, write_buckets, write_hashes, write_numbers, write_range,
            write_versions,
        },
    },
};

impl Request {
    pub(super) const fn kind(&self) -> u64 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Ping => kind::PING,
            Self::Goodbye => kind::GOODBYE,
            Self::Get { .. } => kind::GET,
            Self::Put { .. } => kind::PUT,
            Self::Delete { .. } => kind::DELETE,
            Self::Conditional(_) => kind::CONDITIONAL,
            Self::Replicate(_) => kind::REPLICATE,
            Self::Watch { .. } => kind::WATCH,
            Self::Gossip(_) => kind::GOSSIP,
            Self::Lease { .. } => kind::LEASE,
            Self::Release { .. } => kind::RELEASE,
            Self::Follow { .. } => kind::FOLLOW,
            Self::Purge { .. } => kind::PURGE,
            Self::Locate { .. } => kind::LOCATE,
            Self::Listen { .. } => kind::LISTEN,
            Self::Digests { .. } => kind::DIGESTS,
            Self::BucketVersions(_) => kind::BUCKET_VERSIONS,
            Self::KeyVersions(_) => kind::KEY_VERSIONS,
            Self::Fetch(_) | Self::Adopt(_) => kind::FETCH,
            Self::Copy { .. } => kind::COPY,
            Self::Offer(_) => kind::OFFER,
        }
    }

    /// Returns whether the request may be sent again although it may have arrived.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        matches!(self, Self::Get { .. })
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, metadata, .. } => {
                key.as_bytes().len() + value.len() + metadata.len()
            }
            Self::Conditional(write) => match &write.op {
                ConditionalOp::Put { value, metadata, .. } => {
                    write.key.as_bytes().len() + value.len() + metadata.len()
                }
                _ => write.key.as_bytes().len(),
            },
            Self::Replicate(records) => {
                records.iter().map(|one| one.record.payload_bytes() + 48).sum()
            }
            Self::Hello(hello) => hello.size_hint(),
            Self::Purge { target, .. } => target.encode().len() + 32,
            Self::Gossip(content) => content.len(),
            Self::Get { key }
            | Self::Delete { key, .. }
            | Self::Lease { key, .. }
            | Self::Release { key, .. } => key.as_bytes().len(),
            Self::Locate { keys, .. } => keys.iter().map(|key| key.as_bytes().len() + 8).sum(),
            Self::Offer(versions) => KEY_VERSION_BYTES * versions.len(),
            Self::Ping
            | Self::Goodbye
            | Self::Copy { .. }
            | Self::Watch { .. }
            | Self::Follow { .. }
            | Self::Listen { .. } => 0,
            Self::Digests { resolution: Resolution::Blocks, .. } => 32,
            Self::Digests {
                resolution: Resolution::Seconds(selectors) | Resolution::Shards(selectors),
                ..
            } => 32 + 8 * selectors.len(),
            Self::BucketVersions(buckets) => 8 * buckets.len(),
            Self::KeyVersions(keys) | Self::Fetch(keys) | Self::Adopt(keys) => 16 * keys.len(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of request")]
    pub(super) fn write(&self, out: &mut Writer<'_>, now: Instant) {
        match self {
            Self::Hello(hello) => out.nested(tag::HELLO, |out| hello.write(out)),
            Self::Ping | Self::Goodbye => {}
            Self::Get { key } => out.bytes(tag::KEY, key.as_bytes()),
            Self::Put { key, value, metadata, ttl, ack, version } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.shared(tag::VALUE, value);
                if !metadata.is_empty() {
                    out.bytes(tag::METADATA, metadata);
                }
                out.number(tag::TTL_MS, ttl.as_millis());
                out.number(tag::ACK, ack.to_number());
                write_version(out, *version);
            }
            Self::Delete { key, ack } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.number(tag::ACK, ack.to_number());
            }
            Self::Conditional(write) => write_conditional(out, write),
            Self::Lease { key, lease_ms, wait_ms, newer_than } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.number(tag::LEASE_MS, *lease_ms);
                out.number(tag::WAIT_MS, *wait_ms);
                if let Some(version) = newer_than {
                    out.bytes(tag::NEWER_THAN, &version.to_bytes());
                }
            }
            Self::Release { key, token, failed } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.bytes(tag::TOKEN, &token.to_bytes());
                if *failed {
                    out.number(tag::FAILED, 1);
                }
            }
            Self::Purge { target, mode, hold_ms, ack, replayed } => {
                out.bytes(tag::TARGET, &target.encode());
                if *mode == PurgeMode::Soft {
                    out.number(tag::SOFT, 1);
                }
                if *hold_ms > 0 {
                    out.number(tag::HOLD_MS, *hold_ms);
                }
                out.number(tag::ACK, ack.to_number());
                if let Some(version) = replayed {
                    out.bytes(tag::TOKEN, &version.to_bytes());
                }
            }
            Self::Follow { since, with_purges } => {
                out.number(tag::SINCE, *since);
                if *with_purges {
                    out.number(tag::WITH_PURGES, 1);
                }
            }
            Self::Listen { since, at_once } => {
                out.number(tag::SINCE, *since);
                if *at_once {
                    out.number(tag::AT_ONCE, 1);
                }
            }
            Self::Locate { keys, digest, spread } => {
                for key in keys {
                    out.bytes(tag::KEYS, key.as_bytes());
                }
                if *digest {
                    out.number(tag::DIGEST, 1);
                }
                out.number(tag::SPREAD, spread.to_number());
            }
            Self::Watch { view } => out.number(tag::VIEW, *view),
            Self::Gossip(content) => out.bytes(tag::GOSSIP, content),
            Self::Replicate(records) => {
                for record in records {
                    out.nested(tag::RECORD, |out| record.write(out, now));
                }
            }
            Self::Digests { window, resolution, last_sync_ms } => {
                out.number(tag::FROM_SECOND, window.from);
                out.number(tag::TO_SECOND, window.to);
                match resolution {
                    Resolution::Blocks => {}
                    Resolution::Seconds(blocks) => {
                        out.number(tag::RESOLUTION, 1);
                        write_numbers(out, tag::SELECTORS, blocks);
                    }
                    Resolution::Shards(seconds) => {
                        out.number(tag::RESOLUTION, 2);
                        write_numbers(out, tag::SELECTORS, seconds);
                    }
                }
                if let Some(last_sync_ms) = last_sync_ms {
                    out.number(tag::LAST_SYNC_MS, *last_sync_ms);
                }
            }
            Self::BucketVersions(buckets) => write_buckets(out, tag::BUCKETS, buckets),
            Self::KeyVersions(keys) | Self::Fetch(keys) => write_hashes(out, tag::HASHES, keys),
            Self::Adopt(keys) => {
                write_hashes(out, tag::HASHES, keys);
                out.number(tag::OWNED, 1);
            }
            Self::Offer(versions) => write_versions(out, tag::OFFERED, versions),
            Self::Copy { first_shard, last_shard, range, owned } => {
                out.number(tag::FIRST_SHARD, u64::from(*first_shard));
                if last_shard != first_shard {
                    out.number(tag::LAST_SHARD, u64::from(*last_shard));
                }
                let tags = [tag::COLDER_THAN, tag::SINCE_TICK];
                write_range(out, tags, *range);
                if *owned {
                    out.number(tag::OWNED, 1);
                }
            }
        }
    }
}

/// Appends where the version of a Put comes from.
pub(super) fn write_version(out: &mut Writer<'_>, version: VersionSource) {
    match version {
        // One above a version is chosen by the node, which knows the value.
        VersionSource::Accepted | VersionSource::Above(_) => {}
        VersionSource::Computed(Basis { age_ms, known }) => {
            out.number(tag::AGE_MS, age_ms);
            if known > 0 {
                out.number(tag::KNOWN, known);
            }
        }
        VersionSource::Given(token) => out.bytes(tag::TOKEN, &token.to_bytes()),
    }
}

/// The numbers of the operations of a conditional write.
pub(super) mod operation {
    pub const PUT: u8 = 1;
    pub const DELETE: u8 = 2;
    pub const TOUCH: u8 = 3;
    pub const TAKE: u8 = 4;
    pub const USE: u8 = 5;
}

fn write_conditional(out: &mut Writer<'_>, write: &ConditionalWrite) {
    let ConditionalWrite { key, condition, op, ack } = write;
    out.bytes(tag::KEY, key.as_bytes());
    let operation = match op {
        ConditionalOp::Put { value, metadata, ttl } => {
            out.shared(tag::VALUE, value);
            if !metadata.is_empty() {
                out.bytes(tag::METADATA, metadata);
            }
            out.number(tag::TTL_MS, ttl.as_millis());
            operation::PUT
        }
        ConditionalOp::Delete => operation::DELETE,
        ConditionalOp::Touch { ttl } => {
            out.number(tag::TTL_MS, ttl.as_millis());
            operation::TOUCH
        }
        ConditionalOp::Take => operation::TAKE,
        ConditionalOp::Use => operation::USE,
    };
    out.number(tag::ACK, ack.to_number());
    out.number(tag::OPERATION, u64::from(operation));
    match condition {
        Condition::Present => {}
        Condition::Absent => out.bytes(tag::EXPECTED, &[]),
        Condition::Version(version) => out.bytes(tag::EXPECTED, &version.to_bytes()),
    }
}
