//! Collects the fields of a message and builds the request from them.

use alloc::{boxed::Box, vec::Vec};
use core::mem::take;

use bytes::Bytes;

use super::{
    Ack, REPLICATED_RECORDS_MAX, Request,
    content::operation,
    tags::{kind, tag},
};
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    key::{Key, KeyHash, SHARDS},
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    locate::{LOCATED_KEYS_MAX, Spread},
    purge::{PurgeMode, PurgeTarget},
    store::{CopyRange, KeyVersion},
    time::Instant,
    ttl::Ttl,
    version::{Basis, Version, VersionSource},
    wire::{
        datagram::CONTENT_BYTES_MAX,
        field::{DecodeError, Field},
        hello::Hello,
        repair::{
            Bucket, Resolution, SELECTORS_MAX, Window, cursor_from, read_buckets, read_hashes,
            read_numbers, read_offered,
        },
        replication::{ReplicatedRecord, read_key},
    },
};

/// The fields of any request. The kind decides later which of them are used.
#[derive(Default)]
pub(super) struct Body {
    hello: Option<Hello>,
    key: Option<Key>,
    value: Option<Bytes>,
    metadata: Bytes,
    ttl: Option<Ttl>,
    ack: Ack,
    records: Vec<ReplicatedRecord>,
    gossip: Bytes,
    view: u64,
    window: Window,
    resolution: u64,
    selectors: Vec<u64>,
    last_sync_ms: Option<u64>,
    buckets: Vec<Bucket>,
    hashes: Vec<KeyHash>,
    owned: bool,
    offered: Vec<KeyVersion>,
    first_shard: Option<u8>,
    last_shard: Option<u8>,
    colder_than: Option<u64>,
    since_tick: Option<u32>,
    lease_ms: u64,
    wait_ms: u64,
    token: Option<Version>,
    age_ms: Option<u64>,
    known: u64,
    failed: bool,
    since: u64,
    newer_than: Option<Version>,
    target: Option<PurgeTarget>,
    soft: bool,
    hold_ms: u64,
    with_purges: bool,
    at_once: bool,
    keys: Vec<Key>,
    digest: bool,
    spread: Spread,
    operation: u8,
    /// In a box, because few requests have one, and all are decoded here.
    condition: Option<Box<Condition>>,
}

impl Body {
    pub(super) fn set(&mut self, field: &Field<'_>, now: Instant) -> Result<(), DecodeError> {
        match field.tag {
            tag::HELLO => self.hello = Some(Hello::read(field.reader())?),
            tag::KEY => self.key = Some(read_key(field)?),
            tag::VALUE => self.value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
            tag::METADATA => self.metadata = field.bounded(METADATA_BYTES_MAX)?,
            tag::TTL_MS => {
                self.ttl = Some(Ttl::from_millis(field.number()?).map_err(|_| field.invalid())?);
            }
            tag::ACK => self.ack = Ack::from_field(field)?,
            tag::RECORD if self.records.len() < REPLICATED_RECORDS_MAX => {
                self.records.push(ReplicatedRecord::read(field.reader(), now)?);
            }
            tag::VIEW => self.view = field.number()?,
            tag::GOSSIP => self.gossip = field.bounded(CONTENT_BYTES_MAX)?,
            tag::RECORD => return Err(DecodeError::TooMany(field.tag)),
            tag::FROM_SECOND => self.window.from = field.number()?,
            tag::TO_SECOND => self.window.to = field.number()?,
            tag::RESOLUTION => self.resolution = field.number()?,
            tag::SELECTORS => self.selectors = read_numbers(field, SELECTORS_MAX)?,
            tag::LAST_SYNC_MS => self.last_sync_ms = Some(field.number()?),
            tag::BUCKETS => self.buckets = read_buckets(field)?,
            tag::HASHES => self.hashes = read_hashes(field)?,
            tag::OWNED => self.owned = field.number()? != 0,
            tag::OFFERED => self.offered = read_offered(field)?,
            tag::FIRST_SHARD => self.first_shard = Some(read_shard(field)?),
            tag::LAST_SHARD => self.last_shard = Some(read_shard(field)?),
            tag::COLDER_THAN => self.colder_than = Some(field.number()?),
            tag::SINCE_TICK => {
                let tick = u32::try_from(field.number()?).map_err(|_| field.invalid())?;
                self.since_tick = Some(tick);
            }
            tag::LEASE_MS => self.lease_ms = field.number()?,
            tag::WAIT_MS => self.wait_ms = field.number()?,
            tag::TOKEN => self.token = Some(Version::from_bytes(field.array()?)),
            tag::AGE_MS => self.age_ms = Some(field.number()?),
            tag::KNOWN => self.known = field.number()?,
            tag::FAILED => self.failed = field.number()? != 0,
            tag::SINCE => self.since = field.number()?,
            tag::NEWER_THAN => self.newer_than = Some(Version::from_bytes(field.array()?)),
            tag::TARGET => {
                let target = PurgeTarget::decode(field.content);
                self.target = Some(target.ok_or_else(|| field.invalid())?);
            }
            tag::SOFT => self.soft = field.number()? != 0,
            tag::HOLD_MS => self.hold_ms = field.number()?,
            tag::KEYS if self.keys.len() < LOCATED_KEYS_MAX => self.keys.push(read_key(field)?),
            tag::KEYS => return Err(DecodeError::TooMany(field.tag)),
            tag::DIGEST => self.digest = field.number()? != 0,
            tag::SPREAD => self.spread = Spread::from_field(field)?,
            tag::OPERATION => {
                self.operation = u8::try_from(field.number()?).map_err(|_| field.invalid())?;
            }
            tag::EXPECTED => {
                self.condition = Some(Box::new(match field.content.is_empty() {
                    true => Condition::Absent,
                    false => Condition::Version(Version::from_bytes(field.array()?)),
                }));
            }
            tag::WITH_PURGES => self.with_purges = field.number()? != 0,
            tag::AT_ONCE => self.at_once = field.number()? != 0,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn into_request(mut self, kind: u64) -> Result<Request, DecodeError> {
        if kind == kind::CONDITIONAL {
            return self.take_conditional();
        }
        let key = self.key.ok_or(DecodeError::Missing(tag::KEY));
        Ok(match kind {
            kind::HELLO => {
                Request::Hello(Box::new(self.hello.ok_or(DecodeError::Missing(tag::HELLO))?))
            }
            kind::PING => Request::Ping,
            kind::GOODBYE => Request::Goodbye,
            kind::GET => Request::Get { key: key? },
            kind::PUT => Request::Put {
                key: key?,
                value: self.value.ok_or(DecodeError::Missing(tag::VALUE))?,
                metadata: self.metadata,
                ttl: self.ttl.ok_or(DecodeError::Missing(tag::TTL_MS))?,
                ack: self.ack,
                version: version_source(self.token, (self.age_ms, self.known)),
            },
            kind::DELETE => Request::Delete { key: key?, ack: self.ack },
            kind::REPLICATE => Request::Replicate(self.records),
            kind::WATCH => Request::Watch { view: self.view },
            kind::LEASE => Request::Lease {
                key: key?,
                lease_ms: self.lease_ms,
                wait_ms: self.wait_ms,
                newer_than: self.newer_than,
            },
            kind::RELEASE => Request::Release {
                key: key?,
                token: self.token.ok_or(DecodeError::Missing(tag::TOKEN))?,
                failed: self.failed,
            },
            kind::PURGE => Request::Purge {
                target: self.target.ok_or(DecodeError::Missing(tag::TARGET))?,
                mode: if self.soft { PurgeMode::Soft } else { PurgeMode::Hard },
                hold_ms: self.hold_ms,
                ack: self.ack,
                replayed: self.token,
            },
            kind::FOLLOW => Request::Follow { since: self.since, with_purges: self.with_purges },
            kind::LISTEN => Request::Listen { since: self.since, at_once: self.at_once },
            kind::LOCATE if self.keys.is_empty() => return Err(DecodeError::Missing(tag::KEY)),
            kind::LOCATE => {
                Request::Locate { keys: self.keys, digest: self.digest, spread: self.spread }
            }
            kind::GOSSIP => Request::Gossip(self.gossip),
            kind::DIGESTS => Request::Digests {
                window: self.window,
                resolution: resolution(self.resolution, self.selectors)?,
                last_sync_ms: self.last_sync_ms,
            },
            kind::BUCKET_VERSIONS => Request::BucketVersions(self.buckets),
            kind::KEY_VERSIONS => Request::KeyVersions(self.hashes),
            kind::FETCH if self.owned => Request::Adopt(self.hashes),
            kind::FETCH => Request::Fetch(self.hashes),
            kind::OFFER => Request::Offer(self.offered),
            kind::COPY => Request::Copy {
                first_shard: self.first_shard.ok_or(DecodeError::Missing(tag::FIRST_SHARD))?,
                last_shard: self.last_shard.or(self.first_shard).unwrap_or_default(),
                range: CopyRange {
                    colder_than: self.colder_than.map(cursor_from),
                    since: self.since_tick,
                },
                owned: self.owned,
            },
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }

    /// Returns the conditional write. One whose operation is not known must not be made without it.
    ///
    /// Apart from the others, which are more frequent.
    #[cold]
    #[inline(never)]
    fn take_conditional(&mut self) -> Result<Request, DecodeError> {
        let ttl = self.ttl.ok_or(DecodeError::Missing(tag::TTL_MS));
        let op = match self.operation {
            operation::PUT => ConditionalOp::Put {
                value: self.value.take().ok_or(DecodeError::Missing(tag::VALUE))?,
                metadata: take(&mut self.metadata),
                ttl: ttl?,
            },
            operation::DELETE => ConditionalOp::Delete,
            operation::TOUCH => ConditionalOp::Touch { ttl: ttl? },
            operation::TAKE => ConditionalOp::Take,
            operation::USE => ConditionalOp::Use,
            _ => return Err(DecodeError::Invalid(tag::OPERATION)),
        };
        let key = self.key.take().ok_or(DecodeError::Missing(tag::KEY))?;
        let condition = self.condition.take();
        let condition = condition.map_or(Condition::Present, |condition| *condition);
        let write = ConditionalWrite { key, condition, op, ack: self.ack };
        Ok(Request::Conditional(Box::new(write)))
    }
}

/// Returns the resolution of digests with this number.
fn resolution(number: u64, selectors: Vec<u64>) -> Result<Resolution, DecodeError> {
    match number {
        0 => Ok(Resolution::Blocks),
        1 => Ok(Resolution::Seconds(selectors)),
        2 => Ok(Resolution::Shards(selectors)),
        _ => Err(DecodeError::Invalid(tag::RESOLUTION)),
    }
}

fn version_source(token: Option<Version>, (age_ms, known): (Option<u64>, u64)) -> VersionSource {
    match (token, age_ms) {
        (Some(token), _) => VersionSource::Given(token),
        (None, Some(age_ms)) => VersionSource::Computed(Basis { age_ms, known }),
        (None, None) => VersionSource::Accepted,
    }
}

fn read_shard(field: &Field<'_>) -> Result<u8, DecodeError> {
    let shard = u8::try_from(field.number()?).ok().filter(|shard| usize::from(*shard) < SHARDS);
    shard.ok_or(field.invalid())
}
