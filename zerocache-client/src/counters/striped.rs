//! A counter for hot paths that many threads share.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Parts of a [`Striped`] counter that belong to one thread each. Further threads share one more.
const OWNED: usize = 32;

/// Which of them belong to a thread, by bits.
static TAKEN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static STRIPE: Stripe = Stripe::take();
}

/// The part of all counters that belongs to a thread for as long as it lives.
struct Stripe(Option<usize>);

impl Stripe {
    fn take() -> Self {
        // The last one's additions are seen by who takes it next.
        let taken = TAKEN.fetch_update(AcqRel, Acquire, |taken| {
            (taken != u32::MAX).then(|| taken | (taken + 1))
        });
        // One of 32 bits.
        Self(taken.ok().map(|taken| taken.trailing_ones() as usize))
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        if let Some(stripe) = self.0 {
            TAKEN.fetch_and(!(1 << stripe), Release);
        }
    }
}

/// A number in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// A counter that many threads add to: most have a part of their own, so that they neither wait for each
/// other nor for the memory.
#[derive(Debug, Default)]
pub(crate) struct Striped {
    owned: [Padded; OWNED],
    shared: Padded,
}

impl Striped {
    /// Adds one.
    #[inline]
    pub(crate) fn count(&self) {
        // A thread that is being torn down has none.
        let stripe = STRIPE.try_with(|stripe| stripe.0).ok().flatten();
        match stripe.and_then(|stripe| self.owned.get(stripe)) {
            // Nobody else writes it.
            Some(Padded(count)) => count.store(count.load(Relaxed).wrapping_add(1), Relaxed),
            None => {
                self.shared.0.fetch_add(1, Relaxed);
            }
        }
    }

    /// The sum.
    pub(crate) fn sum(&self) -> u64 {
        let owned = self.owned.iter().map(|part| part.0.load(Relaxed));
        owned.fold(self.shared.0.load(Relaxed), u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_parts_lose_nothing() {
        let count = Striped::default();
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for _ in 0..2 * OWNED {
                    scope.spawn(|| (0..1_000).for_each(|_| count.count()));
                }
            });
        }
        assert_eq!(count.sum(), 4 * OWNED as u64 * 1_000);
    }
}
