//! Bugs injected into stores and nodes, to test that the simulator detects them. Without the feature
//! `variants` no bug can be injected: the check is the constant `false`.

/// A bug in a store, or in the way its node uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVariant {
    /// No tombstones are kept.
    NoTombstones,
    /// Evicted entries leave no tombstones, so that peers offer them again.
    EvictionsForgotten,
    /// A node never detects that it has missed too many writes.
    NeverOutdated,
    /// Three of a hundred writes are acknowledged and not stored.
    WritesDropped,
    /// An outdated node also drops values newer than the retention.
    NewerErased,
    /// Writes are not replicated.
    NothingSent,
    /// Failed replication is not retried.
    RetriesDropped,
    /// A node that shuts down drops its replication queues.
    QueuesDropped,
    /// Reads serve what purges ended, until the sweep has dropped it.
    PurgedServed,
    /// Nodes that copy get what purges ended, and keep it.
    PurgedCopied,
    /// Repair brings back what purges ended.
    PurgedRepaired,
    /// Purges are forgotten after the next sweep, before the retention.
    PurgesForgotten,
    /// Soft purges end entries as hard ones do.
    SoftPurgesHard,
    /// Hard purges end the fresh time only, as soft ones do.
    HardPurgesSoft,
    /// Nothing is erased on disk that is deleted or replaced.
    DiskErasesDropped,
    /// Changes are acknowledged before what they erase is written.
    DiskAcksEarly,
    /// A process that starts ignores the erases on its disk.
    DiskErasesIgnored,
    /// What has been copied on disk is looked for at its former place.
    DiskMovesIgnored,
    /// Purges are not written to disk.
    DiskPurgesDropped,
}

/// The injected bug, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breakage {
    #[cfg(feature = "variants")]
    variant: Option<StoreVariant>,
}

impl Breakage {
    #[cfg(feature = "variants")]
    pub(crate) const fn new(variant: Option<StoreVariant>) -> Self {
        Self { variant }
    }

    /// Returns whether this bug is injected.
    #[inline]
    pub(crate) fn is(self, variant: StoreVariant) -> bool {
        #[cfg(feature = "variants")]
        return self.variant == Some(variant);
        #[cfg(not(feature = "variants"))]
        {
            let _ = variant;
            false
        }
    }
}
