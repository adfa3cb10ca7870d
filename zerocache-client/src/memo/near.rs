//! The value of a call from the near cache: what most calls of a hot key are, so nothing is allocated or
//! boxed for it, and no client is held.

use std::sync::Arc;
use std::time::Duration;

use super::rule::Policy;
use super::run::Entry;
use crate::client::Face;
use crate::near::{Held, hash_of};

/// The call's value, if the near cache has one that may be served. `age` is the function's own bound of
/// its age, beside the client's.
#[inline]
pub(super) fn hit<T>(entry: &Entry, age: Option<Duration>, policy: &Policy<T>) -> Option<T> {
    let held = match (&entry.identity, &entry.given) {
        (Some(key), _) => entry
            .target
            .with_face(entry.site, |face| key.with(&face.namespace, |key| look(face, key, age)))?,
        (None, Some(given)) => look(given.client.face(), &given.key, age)?,
        (None, None) => return None,
    };
    // Outside of whatever is held above: `Deserialize` is the user's code. What does not decode is
    // looked at again, and counted, on the long way.
    (policy.decode)(held.value()).ok()
}

fn look(face: &Face, key: &[u8], age: Option<Duration>) -> Option<Arc<Held>> {
    let near = face.near.as_ref()?;
    let hash = hash_of(key);
    let held = near.look(hash, key, age)?;
    face.memo.near_hits.count(hash);
    Some(held)
}
