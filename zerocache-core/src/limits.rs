//! Bounds on what one entry may be.

/// The longest metadata section of an entry in bytes: room for a few tagged fields.
pub const METADATA_BYTES_MAX: usize = 1024;

/// The longest key that a replica takes from a peer, whatever its own limit says.
///
/// Limits are applied by the node that accepts a write; this one only keeps a forged record from
/// claiming more than any configuration allows.
pub const KEY_BYTES_WIRE_MAX: usize = 64 * 1024;

/// The largest value that fits into a message in bytes; no configuration allows more.
pub const VALUE_BYTES_WIRE_MAX: usize = 256 * 1024 * 1024;

/// What the node that accepts a write allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key in bytes, at least 1; default 1,024. A node's configuration allows up to 16 KiB.
    pub key_bytes_max: usize,
    /// Largest value in bytes; default 8 MiB, never above 1/16 of the byte budget.
    pub value_bytes_max: usize,
}

impl Limits {
    /// The default limit of a key: 1 KiB, which fits a URL of every common proxy.
    pub const KEY_BYTES_DEFAULT: usize = 1024;
    /// The default limit of a value: 8 MiB.
    pub const VALUE_BYTES_DEFAULT: usize = 8 * 1024 * 1024;
    /// A value may take at most this fraction of the byte budget (1/16).
    pub const VALUE_BUDGET_FRACTION: u64 = 16;

    /// The largest value that a store of `bytes_max` allows when `wanted` is asked for.
    #[must_use]
    pub fn value_bytes_within(wanted: usize, bytes_max: u64) -> usize {
        let cap = usize::try_from(bytes_max / Self::VALUE_BUDGET_FRACTION).unwrap_or(usize::MAX);
        wanted.min(cap).min(VALUE_BYTES_WIRE_MAX)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { key_bytes_max: Self::KEY_BYTES_DEFAULT, value_bytes_max: Self::VALUE_BYTES_DEFAULT }
    }
}
