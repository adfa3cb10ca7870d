//! Keys that are being computed further up on this thread's stack.
//!
//! A memoized function that calls itself with the same arguments would wait for itself; it computes without
//! waiting instead.

use std::cell::RefCell;

use bytes::Bytes;

thread_local! {
    static COMPUTING: RefCell<Vec<(u64, Bytes)>> = const { RefCell::new(Vec::new()) };
}

/// Removes the key when it is dropped, also after a panic.
pub(crate) struct ComputingGuard(());

/// Marks a key as being computed until the guard is dropped.
pub(crate) fn enter(group: u64, key: &Bytes) -> ComputingGuard {
    COMPUTING.with_borrow_mut(|keys| keys.push((group, key.clone())));
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
    COMPUTING
        .try_with(|keys| keys.borrow().iter().any(|(g, k)| *g == group && k == key))
        .unwrap_or(false)
}
