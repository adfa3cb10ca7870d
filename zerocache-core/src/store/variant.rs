//! Stores and nodes that are broken on purpose, to show that the simulator notices. Without the feature
//! `variants` nothing can be broken: what asks for it is the constant `false`.

/// What is broken in a store, or in what its node does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVariant {
    /// Nothing is remembered of what is gone.
    NoTombstones,
    /// Nothing is remembered of what is evicted, so that others offer it again.
    EvictionsForgotten,
    /// A node never finds out that it has missed too much.
    NeverOutdated,
    /// Of a hundred writes three are taken, and nothing is stored.
    WritesDropped,
    /// A node that is outdated gives up what is newer than the retention too.
    NewerErased,
    /// Writes are sent to nobody.
    NothingSent,
    /// What could not be sent is not sent again.
    RetriesDropped,
    /// A node that leaves drops what waits for others.
    QueuesDropped,
}

/// Whether something is broken; nothing can be without the feature `variants`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breakage {
    #[cfg(feature = "variants")]
    what: Option<StoreVariant>,
}

impl Breakage {
    #[cfg(feature = "variants")]
    pub(crate) const fn new(what: Option<StoreVariant>) -> Self {
        Self { what }
    }

    /// Whether this is broken.
    #[inline]
    pub(crate) fn is(self, what: StoreVariant) -> bool {
        #[cfg(feature = "variants")]
        return self.what == Some(what);
        #[cfg(not(feature = "variants"))]
        {
            let _ = what;
            false
        }
    }
}
