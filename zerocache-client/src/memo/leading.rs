//! Which keys are being computed further up on this thread's stack.
//!
//! A memoized function that calls itself with the same arguments would wait for itself; it
//! computes alone instead.

use std::cell::RefCell;

use bytes::Bytes;

thread_local! {
    static LEADING: RefCell<Vec<(u64, Bytes)>> = const { RefCell::new(Vec::new()) };
}

/// Takes the key off again, after a panic too.
pub(crate) struct Entered(());

/// Marks a key as being computed until the guard is dropped.
pub(crate) fn enter(group: u64, key: &Bytes) -> Entered {
    LEADING.with_borrow_mut(|keys| keys.push((group, key.clone())));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Guards are locals of `poll`, so the last one is ours. A thread that is being torn down
        // has nothing left to take off.
        let _ = LEADING.try_with(|keys| keys.borrow_mut().pop());
    }
}

/// Whether the key is being computed by a caller of ours.
pub(crate) fn contains(group: u64, key: &Bytes) -> bool {
    LEADING
        .try_with(|keys| keys.borrow().iter().any(|(g, k)| *g == group && k == key))
        .unwrap_or(false)
}
