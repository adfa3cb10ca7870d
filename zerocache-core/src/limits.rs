//! Limits on the size of an entry.

/// The largest metadata of an entry in bytes: room for all tags, and a few other fields.
pub const METADATA_BYTES_MAX: usize = 4096;

/// The longest key that a replica accepts from a peer, in bytes, independent of its own limit.
///
/// The node that accepts a write applies the configured limits. This one rejects forged records that exceed
/// every possible configuration.
pub const KEY_BYTES_WIRE_MAX: usize = 64 * 1024;

/// The largest value that fits into a message, in bytes. No configuration allows more.
pub const VALUE_BYTES_WIRE_MAX: usize = 256 * 1024 * 1024;

/// The limits that a node applies to writes that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key in bytes, at least 1; default 1,024. A node's configuration allows up to 16 KiB.
    pub key_bytes_max: usize,
    /// The largest value in bytes; default 8 MiB, never above 1/16 of the byte budget.
    pub value_bytes_max: usize,
}

impl Limits {
    /// The default limit of a key: 1 KiB, which fits a URL of every common proxy.
    pub const KEY_BYTES_DEFAULT: usize = 1024;
    /// The default limit of a value: 8 MiB.
    pub const VALUE_BYTES_DEFAULT: usize = 8 * 1024 * 1024;
    /// The largest value as a fraction of the byte budget (1/16).
    pub const VALUE_BUDGET_FRACTION: u64 = 16;

    /// Caps the configured limit `wanted` for a store of `bytes_max`.
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
