//! What reads and writes have to do with the near cache.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::{
    client::{FillPermit, near_hash},
    key::Key,
    metadata::{Freshness, Metadata},
    route::Tier,
    ttl::Ttl,
    version::Version,
    wire::{Status, Written},
};
use zerocache_net::clock;

use super::{LocalState, engine::Engine, entry::Entry, millis, prepared::Prepared};
use crate::{
    Error,
    near::{Fill, Near, NearEntry, UnstoredPermit},
};

/// How old what is served near may be: as the client says, or less.
pub(crate) type NearAge = Option<Duration>;

/// A read's dealings with the near cache.
#[derive(Clone, Copy, Default)]
pub(super) struct NearRead {
    /// None where the near cache is not asked.
    wanted: Option<NearAge>,
    /// No caller asks: what is there is read again.
    is_renewal: bool,
    begun: Option<FillPermit>,
}

impl NearRead {
    pub(super) fn new(wanted: Option<NearAge>) -> Self {
        Self { wanted, is_renewal: false, begun: None }
    }

    /// A read that only renews what the near cache has.
    pub(super) fn renewal() -> Self {
        Self { wanted: Some(None), is_renewal: true, begun: None }
    }

    /// The entry of `key`, if there is one near that is no older than the version `at_least`. Otherwise
    /// the read begins, and what it finds may be [kept](Self::keep).
    pub(super) fn find(
        &mut self,
        local: &LocalState,
        key: &[u8],
        at_least: Option<Version>,
    ) -> Option<Entry> {
        let (age, near) = self.wanted.zip(local.near.as_ref())?;
        if self.is_renewal {
            self.begun = near.near.begin_fill(clock::mono());
            return None;
        }
        let hash = near_hash(key);
        let is_new = |held: &NearEntry| at_least.is_none_or(|least| held.version >= least);
        let found = near.with((hash, key), age, |held| is_new(held).then(|| entry(held)));
        match found.flatten() {
            Some(found) => {
                near.hits.count();
                found
            }
            None => {
                self.begun = near.begin();
                None
            }
        }
    }

    /// Keeps what nodes gave, and drops what they know better; that is nothing if they could not tell.
    pub(super) fn answered(
        &self,
        local: &LocalState,
        key: &[u8],
        (found, is_doubtful): (Option<&Entry>, bool),
    ) {
        if let Some(found) = found {
            self.keep(local, key, found);
        }
        if let Some(near) = local.near.as_ref().filter(|_| !is_doubtful) {
            near.near.node_answered(key, found.map(|found| found.version));
        }
    }

    /// Keeps what the read found.
    fn keep(&self, local: &LocalState, key: &[u8], found: &Entry) {
        let Some((begun, near)) = self.begun.zip(local.near.as_ref()) else { return };
        let fill = Fill {
            value: &found.value,
            version: found.version,
            remaining_ms: millis(found.ttl),
            metadata: &found.metadata,
            node: found.node,
            tier: found.tier,
        };
        near.near.insert(begun, key, &fill, clock::mono());
    }
}

/// As the node that it came from would give it now, which it does not know better than the near cache.
fn entry(held: &NearEntry) -> Option<Entry> {
    Some(Entry {
        value: Bytes::copy_from_slice(held.value()),
        version: held.version,
        ttl: Duration::from_millis(held.remaining_ms(clock::coarse())),
        metadata: Metadata::decode(held.metadata()).ok()?,
        freshness: Freshness::Fresh,
        node: held.node,
        tier: held.tier,
    })
}

/// A write's dealings with the near cache, where what it writes is to be kept there.
#[derive(Default)]
pub(super) struct NearWrite {
    wanted: bool,
    kept: Option<Kept>,
}

/// What is written, as readers get it, and the permissions to keep it if it is stored, or cannot be.
struct Kept {
    stored: Option<FillPermit>,
    unstored: Option<UnstoredPermit>,
    key: Bytes,
    value: Bytes,
    metadata: Metadata,
    life_ms: u64,
}

impl NearWrite {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, kept: None }
    }

    /// The write begins.
    pub(super) fn begin(&mut self, local: &LocalState, prepared: &mut Prepared) {
        if self.wanted
            && let Some(near) = &local.near
            && let Some(value) = &mut prepared.value
            && let Ok(life) = Ttl::try_from(value.fresh).and_then(|ttl| value.metadata.life(ttl))
        {
            let stored = near.near.begin_fill(clock::mono());
            let unstored = value.unstored.take();
            if stored.is_some() || unstored.is_some() {
                let (metadata, life_ms) = (value.metadata.clone(), life.as_millis());
                let (key, value) = (prepared.key.clone(), value.bytes.clone());
                self.kept = Some(Kept { stored, unstored, key, value, metadata, life_ms });
            }
        }
    }

    /// Keeps what was stored, or what no node could be asked to store.
    pub(super) fn keep(&mut self, local: &LocalState, written: &Result<Written, Error>) {
        let Some((kept, near)) = self.kept.take().zip(local.near.as_ref()) else { return };
        let is_unstored = matches!(
            written,
            Err(Error::Unreachable { .. }) | Ok(Written { status: Status::Unknown, .. })
        );
        if let Some(permit) = kept.unstored.filter(|_| is_unstored) {
            let value = (&kept.metadata, kept.life_ms);
            Near::keep_unstored(&permit, &kept.key, &kept.value, value, clock::mono());
        }
        if let Ok(Written { status: Status::Stored, version: Some(version), .. }) = *written
            && let Some(begun) = kept.stored
        {
            let fill = Fill {
                value: &kept.value,
                version,
                remaining_ms: kept.life_ms,
                metadata: &kept.metadata,
                node: version.incarnation(),
                tier: Tier::Local,
            };
            near.near.insert(begun, &kept.key, &fill, clock::mono());
        }
    }
}

impl Engine {
    /// A write of `key` begins: from here on the near cache does not serve what it replaces.
    pub(super) fn near_writing(&self, key: &Key) {
        if let Some(near) = &self.local.near {
            near.near.begin_write(key.as_bytes());
        }
    }

    /// A write of `key` has ended, with this version where one is known.
    pub(super) fn near_written(&self, key: &Key, version: Option<Version>) {
        if let Some(near) = &self.local.near {
            near.near.end_write(key.as_bytes(), version, clock::mono());
        }
    }
}
