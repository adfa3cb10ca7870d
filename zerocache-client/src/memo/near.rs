//! The value of a call from the near cache: what most calls of a hot key are, so nothing is allocated or
//! boxed for it, and no client is held.

use std::time::Duration;

use super::args::Args;
use super::key::CallKey;
use super::rule::Policy;
use super::run::Entry;
use super::site::Site;
use super::target::Target;
use crate::client::LocalState;
use crate::near::hash_of;

/// The value of a call that has not been made, if the near cache has one that may be served. `age` is the
/// function's own bound of its age, beside the client's.
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

/// The value of a call, likewise.
#[inline]
pub(super) fn hit<T>(entry: &Entry, age: Option<Duration>, policy: &Policy<T>) -> Option<T> {
    match (&entry.identity, &entry.given) {
        (Some(key), _) => find((entry.site, &entry.target), key, age, policy),
        (None, Some(given)) => decode(given.client.local_state(), &given.key, age, policy),
        (None, None) => None,
    }
}

#[inline]
fn find<T>(
    (site, target): (&Site, &Target),
    key: &CallKey,
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    target.with_face(site, |face| key.with(&face.namespace, |key| decode(face, key, age, policy)))
}

/// What does not decode is looked at again, and counted, on the long way. No lock is held meanwhile:
/// `Deserialize` is the user's code.
#[inline]
fn decode<T>(
    face: &LocalState,
    key: &[u8],
    age: Option<Duration>,
    policy: &Policy<T>,
) -> Option<T> {
    let near = face.near.as_ref()?;
    let hash = hash_of(key);
    let value = near.with((hash, key), age, |held| (policy.decode)(held.value()).ok()).flatten()?;
    face.memo.near_hits.count();
    Some(value)
}
