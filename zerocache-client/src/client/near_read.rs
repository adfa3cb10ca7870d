//! What reads and writes have to do with the near cache.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::{key::Key, metadata::Metadata, version::Version};
use zerocache_net::clock;

use super::{ZerocacheClient, engine::{Engine, Entry}};
use crate::near::{Begun, Fill, Held, hash_of};

/// How old what is served near may be: as the client says, or less.
pub(crate) type NearAge = Option<Duration>;

/// A read's dealings with the near cache.
#[derive(Clone, Copy, Default)]
pub(super) struct NearRead {
    /// None where the near cache is not asked.
    wanted: Option<NearAge>,
    begun: Option<Begun>,
}

impl NearRead {
    pub(super) fn new(wanted: Option<NearAge>) -> Self {
        Self { wanted, begun: None }
    }

    /// The entry of `key`, if there is one near. Otherwise the read begins, and what it finds may be
    /// [kept](Self::keep).
    pub(super) fn find(&mut self, client: &ZerocacheClient, key: &[u8]) -> Option<Entry> {
        let (age, near) = self.wanted.zip(client.face().near.as_ref())?;
        let hash = hash_of(key);
        let Some(held) = near.look(hash, key, age) else {
            self.begun = near.begin(hash);
            return None;
        };
        near.hits.count(hash);
        Some(entry(&held))
    }

    /// Keeps what the read found.
    pub(super) fn keep(&self, client: &ZerocacheClient, key: &[u8], found: &Entry) {
        let Some((begun, near)) = self.begun.zip(client.face().near.as_ref()) else { return };
        let fill = Fill {
            value: &found.value,
            version: found.version,
            remaining_ms: u64::try_from(found.ttl.as_millis()).unwrap_or(u64::MAX),
            metadata: &Metadata::default(),
            node: found.node,
            tier: found.tier,
        };
        near.near.keep(begun, key, &fill, clock::mono());
    }
}

fn entry(held: &Held) -> Entry {
    let ttl = Duration::from_millis(held.remaining_ms(clock::coarse()));
    let value = Bytes::copy_from_slice(held.value());
    Entry { value, version: held.version, ttl, node: held.node, tier: held.tier }
}

impl Engine {
    /// A write of `key` begins: from here on the near cache does not serve what it replaces.
    pub(super) fn near_writing(&self, key: &Key) {
        if let Some(near) = &self.face.near {
            near.near.writing(key.as_bytes());
        }
    }

    /// A write of `key` has ended, with this version where one is known.
    pub(super) fn near_written(&self, key: &Key, version: Option<Version>) {
        if let Some(near) = &self.face.near {
            near.near.written(key.as_bytes(), version, clock::mono());
        }
    }
}
