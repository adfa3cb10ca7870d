//! Clients that are broken on purpose, to show that the simulator notices. Without the feature `variants`
//! nothing can be broken.

/// A broken rule of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVariant {
    /// Own writes are not remembered.
    OwnWritesForgotten,
    /// Writes are hedged as reads are.
    WritesHedged,
    /// Conditions are judged by any node, and not by the same one for a key.
    ConditionsSpread,
    /// Keys of a batch that the first node does not complete get no outcome.
    BatchKeysDropped,
    /// The near cache ignores the changes that the followed node reports.
    FeedRowsIgnored,
    /// Changes that may have been missed do not empty the near cache.
    FeedGapsIgnored,
    /// What is inserted into the near cache counts as read in the present epoch, whenever its read began.
    FillsUnmarked,
    /// The near cache keeps values that are older than a change that was reported a moment before.
    RecentWritesForgotten,
    /// Own writes leave the near cache as it is.
    OwnNearWritesIgnored,
    /// The near cache ignores the purges that the followed node reports.
    FeedPurgesIgnored,
}
