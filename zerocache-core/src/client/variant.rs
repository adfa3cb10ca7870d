//! Clients that are broken on purpose, to show that the simulator notices. Without the feature `variants`
//! nothing can be broken.

/// A broken rule of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVariant {
    /// Own writes are not remembered.
    OwnWritesForgotten,
    /// Writes are hedged as reads are.
    WritesHedged,
    /// Keys of a batch that the first node does not complete get no outcome.
    BatchKeysDropped,
}
