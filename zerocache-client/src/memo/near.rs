//! Hits of the near cache. Most calls of a hot key are such hits, so they allocate nothing, and hold no
//! client.

use std::time::Duration;

use zerocache_core::client::near_hash;

use super::args::Args;
use super::call_target::CallTarget;
use super::key::CallKey;
use super::rule::Policy;
use super::site::Site;
use super::target::Target;
use crate::ZerocacheClient;
use crate::client::LocalState;

/// Returns the value of a call that has not been created, if the near cache has one that may be served. `age`
/// is the function's own maximum age, beside the client's.
#[inline]
pub fn near<T>(
    site: &'static Site,
    target: &Target,
    args: &mut Args,
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    find((site, target), args.key()?, age, policy)
}

/// Returns the value of a call, if the near cache has one that may be served.
#[inline]
pub(super) fn hit<T>(call: &CallTarget, age: Option<Duration>, policy: &Policy<T>) -> Option<T> {
    match (&call.identity, &call.explicit) {
        (Some(key), _) => find((call.site, &call.target), key, age, policy),
        (None, Some(explicit)) => decode(explicit.client.local_state(), &explicit.key, age, policy),
        (None, None) => None,
    }
}

/// Returns the value of an explicit key, if the near cache has one that may be served.
pub(super) fn find_key<T>(
    client: &ZerocacheClient,
    key: &[u8],
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    decode(client.local_state(), key, age, policy)
}

#[inline]
fn find<T>(
    (site, target): (&Site, &Target),
    key: &CallKey,
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    target
        .with_face(site, |local| key.with(&local.namespace, |key| decode(local, key, age, policy)))
}

/// Decodes the near entry of `key`. An entry that does not decode is read again, and counted, by the ordinary
/// path. No lock is held while decoding: `Deserialize` is the user's code.
#[inline]
fn decode<T>(
    local: &LocalState,
    key: &[u8],
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    let near = local.near.as_ref()?;
    let hash = near_hash(key);
    let value =
        near.with((hash, key), age, |entry| (policy.decode)(entry.value()).ok()).flatten()?;
    local.memo.near_hits.count();
    Some(value)
}
