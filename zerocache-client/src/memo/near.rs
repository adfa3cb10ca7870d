//! The value of a call from the near cache: what most calls of a hot key are, so nothing is allocated or
//! boxed for it, and no client is held.

use super::key;
use super::options::NearRule;
use super::rule::Policy;
use super::run::Entry;
use crate::near::hash_of;

/// The call's value, if the near cache has one that may be served. The rule may have a bound
/// of its age beside the client's.
#[inline]
pub(super) fn hit<T>(entry: &Entry, rule: NearRule, policy: &Policy<T>) -> Option<T> {
    let (function, arguments) = entry.identity.as_ref()?;
    let held = entry.target.with_face(entry.site, |face| {
        let near = face.near.as_ref()?;
        let key = key::composed(&face.namespace, *function, arguments);
        let hash = hash_of(&key);
        let held = near.look(hash, &key, rule.max_age)?;
        face.memo.near_hits.count(hash);
        Some(held)
    })?;
    // Outside of whatever is held above: `Deserialize` is the user's code. What does not decode is
    // looked at again, and counted, on the long way.
    (policy.decode)(held.value()).ok()
}
