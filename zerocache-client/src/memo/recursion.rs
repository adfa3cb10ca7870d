//! Keys that are being computed further up on this thread's stack.
//!
//! A memoized function that calls itself with the same arguments would wait for itself; it computes without
//! waiting instead.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

/// What one computation computes.
enum Keys {
    One(Bytes),
    Many(Arc<HashSet<Bytes>>),
}

thread_local! {
    static COMPUTING: RefCell<Vec<(u64, Keys)>> = const { RefCell::new(Vec::new()) };
}

/// Removes the key when it is dropped, also after a panic.
pub(crate) struct ComputingGuard(());

/// Marks a key as being computed until the guard is dropped.
pub(crate) fn enter(group: u64, key: &Bytes) -> ComputingGuard {
    push(group, Keys::One(key.clone()))
}

/// Marks keys that are computed together, until the guard is dropped.
pub(crate) fn enter_all(group: u64, keys: &Arc<HashSet<Bytes>>) -> ComputingGuard {
    push(group, Keys::Many(Arc::clone(keys)))
}

fn push(group: u64, keys: Keys) -> ComputingGuard {
    COMPUTING.with_borrow_mut(|computing| computing.push((group, keys)));
    ComputingGuard(())
}

impl Drop for ComputingGuard {
    fn drop(&mut self) {
        // Guards are locals of `poll`, so the last key is that of this guard. A thread that is being torn
        // down has no keys left.
        let _ = COMPUTING.try_with(|keys| keys.borrow_mut().pop());
    }
}

/// Returns true if the key is being computed by a caller of the current function.
pub(crate) fn is_computing(group: u64, key: &Bytes) -> bool {
    let has_key = |(of, keys): &(u64, Keys)| {
        *of == group
            && match keys {
                Keys::One(one) => one == key,
                Keys::Many(keys) => keys.contains(key),
            }
    };
    COMPUTING.try_with(|computing| computing.borrow().iter().any(has_key)).unwrap_or(false)
}
