//! Stores that are broken on purpose, to show that the simulator notices.

/// What is broken in a store, or in what its node does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVariant {
    /// Nothing is remembered of what is gone.
    NoTraces,
    /// Nothing is remembered of what is evicted, so that others offer it again.
    EvictionsForgotten,
    /// A node never finds out that it has missed too much.
    NeverOutdated,
}
