//! Buffers for keys, which each thread reuses: most calls end before a key has to be kept.

use std::cell::Cell;
use std::ops::Deref;

/// A thread keeps no buffer that has grown beyond this many bytes.
const KEPT_BYTES_MAX: usize = 4_096;

/// The capacity of a new buffer.
const CAPACITY: usize = 128;

thread_local! {
    #[allow(clippy::box_collection, reason = "as for `Buffer`")]
    static SPARE: Cell<Option<Box<Vec<u8>>>> = const { Cell::new(None) };
}

/// The bytes of a key. A pointer, because a call moves it several times: three words that are written one by
/// one and then read together cost more than everything else.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::box_collection, reason = "moved in a register")]
pub(crate) struct Buffer(Option<Box<Vec<u8>>>);

impl Buffer {
    /// Returns an empty buffer, with the thread's spare capacity if there is one.
    #[inline]
    pub(crate) fn new() -> Self {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        Buffer(Some(spare.unwrap_or_else(|| Box::new(Vec::with_capacity(CAPACITY)))))
    }

    /// Returns the bytes for writing.
    #[inline]
    pub(crate) fn vec(&mut self) -> &mut Vec<u8> {
        // Only a buffer that is being dropped has none.
        self.0.get_or_insert_default()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Buffer(self.0.clone())
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut spare) = self.0.take()
            && spare.capacity() <= KEPT_BYTES_MAX
        {
            spare.clear();
            // A thread that is being torn down keeps nothing. The replaced buffer is dropped here.
            let _ = SPARE.try_with(|kept| kept.replace(Some(spare)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_reused_and_empty() {
        let mut first = Buffer::new();
        first.vec().extend_from_slice(&[1; 300]);
        let room = first.vec().capacity();
        drop(first);
        let mut second = Buffer::new();
        assert_eq!((second.len(), second.vec().capacity()), (0, room));
        // While the spare buffer is in use, a new one is allocated.
        assert!(Buffer::new().vec().capacity() < room);
        second.vec().reserve(2 * KEPT_BYTES_MAX);
        drop(second);
        assert!(Buffer::new().vec().capacity() <= KEPT_BYTES_MAX);
    }
}
