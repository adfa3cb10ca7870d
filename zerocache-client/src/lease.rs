//! The scope of a lease, as functions and calls state it.

/// Where a leased key is computed by one process at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseScope {
    /// By one process of the client's region.
    Region,
    /// By one process of all regions together.
    All,
}
