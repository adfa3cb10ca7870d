//! The keyed hash of the tables of a process.

use crate::key::KeyHash;

/// Turns the hash of a key, which is the same on every node, into one that is unpredictable outside of this
/// process. Without it, a client could choose keys that agree in 64 bits of their hashes, and all of them
/// would be in one chain of a table.
#[derive(Clone, Copy, Debug)]
pub struct TableHasher([u64; 2]);

impl TableHasher {
    /// Creates a hasher from two secrets.
    #[must_use]
    pub const fn new(secrets: [u64; 2]) -> Self {
        Self(secrets)
    }

    /// Returns the 64-bit table hash of a key.
    ///
    /// Each half of the key's hash is combined with a secret; the halves of their 128-bit product are
    /// combined into the result. Keys that agree in one half of their hash differ in the other, and the effect
    /// of that half depends on the secret of the first.
    #[inline]
    #[must_use]
    pub const fn hash(self, key: KeyHash) -> u64 {
        let (low, high) = (key.0 as u64 ^ self.0[0], (key.0 >> 64) as u64 ^ self.0[1]);
        let product = low as u128 * high as u128;
        product as u64 ^ (product >> 64) as u64
    }

    /// Returns 32 bits of the table hash, which a slot stores.
    #[inline]
    #[must_use]
    pub const fn bits(self, key: KeyHash) -> u32 {
        self.hash(key) as u32
    }
}

impl Default for TableHasher {
    /// Uses fixed numbers in place of secrets, for tests and simulations: digits of the golden ratio.
    fn default() -> Self {
        Self([0x9e37_79b9_7f4a_7c15, 0xf39c_c060_5ced_c834])
    }
}

/// The most items of a table that is made smaller: all of them are hashed again while the shard is locked. More take
/// milliseconds, and the table keeps its five bytes for each of the most items that it had.
const SHRUNK_ITEMS_MAX: usize = 4_096;

/// Returns whether a table of this capacity should be made smaller for `len` items.
#[inline]
#[must_use]
pub const fn is_worth_shrinking(capacity: usize, len: usize) -> bool {
    len <= SHRUNK_ITEMS_MAX && capacity > 4 * len + 64
}

/// Spreads 32 bits over 64: a table takes the position from the low end and a tag from the high end.
#[inline]
#[must_use]
pub const fn spread(bits: u32) -> u64 {
    (bits as u64) << 32 | bits as u64
}

#[cfg(test)]
pub mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use super::*;

    /// Returns keys of 16 bytes in the first shard whose hashes agree in the lower 64 bits.
    ///
    /// For this length the lower half is a bijection of `low ^ swap(high)`, where both come from a product
    /// that one half of the key alone decides; the other half then sets `high` to whatever is wanted.
    pub fn agreeing_keys(count: usize) -> Vec<[u8; 16]> {
        let flip_low = 0x78e5_c0cc_4ee6_79cb_u64 ^ 0x2172_ffcc_7dd0_5a82;
        let flip_high = 0x8e24_43f7_7446_08b8_u64 ^ 0x4c26_3a81_e690_35e0;
        let spread = 0x85eb_ca77_u32;
        // The inverse of an odd number modulo 2^32, by Newton's iteration.
        let inverse =
            (0..5).fold(spread, |x, _| x.wrapping_mul(2_u32.wrapping_sub(spread.wrapping_mul(x))));
        let key = |n: u64| {
            let product = u128::from(n) * 0x9e37_79b1_85eb_ca87;
            let low = (product as u64).wrapping_add(15 << 54);
            let high = (low ^ 0x0123_4567_89ab_cdef).swap_bytes();
            let sum = high.wrapping_sub((product >> 64) as u64);
            let bottom = (sum as u32).wrapping_mul(inverse);
            let carried = u64::from(bottom) * u64::from(spread - 1);
            let second = sum.wrapping_sub(carried) ^ flip_high;
            let first = n ^ second ^ flip_low;
            let mut key = [0; 16];
            key[..8].copy_from_slice(&first.to_le_bytes());
            key[8..].copy_from_slice(&second.to_le_bytes());
            key
        };
        (1..).map(key).filter(|key| KeyHash::of(key).shard() == 0).take(count).collect()
    }

    #[test]
    fn keys_with_half_of_their_hash_in_common_have_different_table_hashes() {
        let hashes: Vec<_> = agreeing_keys(10_000).iter().map(|key| KeyHash::of(key)).collect();
        let low_halves: BTreeSet<_> = hashes.iter().map(|hash| hash.0 as u64).collect();
        assert_eq!(low_halves.len(), 1, "the hashes differ in their lower halves");
        // The same with the halves exchanged.
        let swapped: Vec<_> = hashes.iter().map(|hash| KeyHash(hash.0.rotate_left(64))).collect();
        for secrets in [TableHasher::default().0, [7, 11], [u64::MAX, 1 << 63]] {
            let key = TableHasher::new(secrets);
            for hashes in [&hashes, &swapped] {
                let bits: BTreeSet<_> = hashes.iter().map(|hash| key.bits(*hash)).collect();
                assert!(bits.len() > 9_990, "{} of 10,000 with {secrets:?}", bits.len());
            }
        }
        let places = |secrets| hashes.iter().map(move |hash| TableHasher::new(secrets).hash(*hash));
        let same = places([1, 2]).zip(places([1, 3])).filter(|(a, b)| a == b).count();
        assert_eq!(same, 0, "the table hash does not depend on the secret");
    }
}
