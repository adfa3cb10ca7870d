//! Hints about reads that follow: their loads overlap, instead of one waiting for the other.
//!
//! A read waits for memory three times: for the slot, for the key and for the value. A caller with many reads
//! at hand gives the first hint some reads ahead, and the second one when the slot has had time to arrive.

use super::{
    Store,
    backend::{Backend, Lock},
};
use crate::key::KeyHash;

impl<B: Backend> Store<B> {
    /// Tells the processor that the slot of a key is read soon. Takes the lock of a shard.
    #[inline]
    pub fn prefetch_slot(&self, hash: KeyHash) {
        self.shard(hash.shard()).with(|shard| shard.prefetch_slot(hash));
    }

    /// Tells the processor that key and value of an entry are read soon, some reads after
    /// [`prefetch_slot`](Self::prefetch_slot). Takes the lock of a shard.
    #[inline]
    pub fn prefetch_block(&self, hash: KeyHash) {
        self.shard(hash.shard()).with(|shard| shard.prefetch_block(hash));
    }
}

#[cfg(test)]
mod tests {
    use alloc::{boxed::Box, format, vec::Vec};
    use core::{
        cell::RefCell,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        entry::{Change, Record},
        key::Key,
        store::{Capacity, Lookup, Pages},
        time::{Instant, Now},
        version::{Incarnation, Version},
    };

    /// The addresses of which the processor was told, and their number. One test alone uses them.
    static HINTS: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    /// Memory that records hints.
    #[derive(Debug)]
    struct RecordingPages(Box<[u8]>);

    impl AsRef<[u8]> for RecordingPages {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl AsMut<[u8]> for RecordingPages {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Pages for RecordingPages {
        fn zeroed(bytes: usize) -> Self {
            Self(Pages::zeroed(bytes))
        }

        fn prefetch<T>(items: &[T], index: usize) {
            let address = (&raw const items[index]) as usize;
            HINTS[COUNT.fetch_add(1, Ordering::Relaxed)].store(address, Ordering::Relaxed);
        }
    }

    struct Recording;

    impl Backend for Recording {
        type Lock<T> = RefCell<T>;
        type Pages = RecordingPages;
    }

    fn hints() -> Vec<usize> {
        let count = COUNT.swap(0, Ordering::Relaxed);
        HINTS[..count].iter().map(|hint| hint.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn hints_name_the_memory_of_the_entry() {
        let store = Store::<Recording>::new(Capacity { entries_max: 10_000, bytes_max: 64 << 20 });
        let now = Now::new(0, 1_000_000);
        let name = |n: usize| Bytes::from(format!("key-{n}"));
        let bytes = |n: usize| if n.is_multiple_of(100) { 100_000 } else { n };
        for n in 0..1_000 {
            let key = Key::within(name(n), 100).expect("a short key");
            let change = Change::Put {
                value: Bytes::from(alloc::vec![1; bytes(n)]),
                metadata: Bytes::new(),
                expires: Instant::from_millis(1_000),
            };
            store.apply(
                &Record { key, version: Version::new(1 << 30, Incarnation(1)), change },
                now,
            );
        }
        for n in 0..1_000 {
            let (name, hash) = (name(n), KeyHash::of(&name(n)));
            store.prefetch_slot(hash);
            assert!(!hints().is_empty(), "key {n}");
            store.prefetch_block(hash);
            let hints = hints();
            let at = store.read(&name, now, |entry| entry.value.as_ptr() as usize);
            let Lookup::Hit(at) = at else { panic!("key {n} is there") };
            if bytes(n) == 100_000 {
                assert_eq!(hints, [], "large values are shared, not copied");
                continue;
            }
            assert_eq!(hints.first(), Some(&(at - name.len())), "key {n}");
            assert!(
                hints.is_sorted()
                    && hints.len() <= 18
                    && hints.iter().all(|hint| *hint < at + n.max(1))
            );
        }
        let hash = KeyHash::of(b"unknown");
        store.prefetch_block(hash);
        assert_eq!(hints(), []);
    }
}
