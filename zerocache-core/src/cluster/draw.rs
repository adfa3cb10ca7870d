//! Draws of nodes for keys, in integers: random numbers, and their logarithms where nodes have weights.

use crate::key::KeyHash;

/// Returns 64 evenly distributed bits of a key for a node.
#[inline]
pub(super) fn mix(key: KeyHash, seed: u64) -> u64 {
    let (low, high) = (key.0 as u64, (key.0 >> 64) as u64);
    let mut bits = (low ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 32) ^ high).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits = (bits ^ (bits >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^ (bits >> 32)
}

/// The bits after the point of logarithms.
const FRACTION_BITS: u32 = 24;

/// log₂(1 + n / 256).
const LOG2: [u32; 257] = {
    let (mut table, mut n) = ([0; 257], 0);
    while n < 257 {
        // A number of [1, 2] with 31 bits after the point is squared once for each bit of its logarithm.
        let mut x = (256 + n as u64) << 23;
        let (mut log, mut bit) = (0, 0);
        if x == 1 << 32 {
            (x, log) = (1 << 31, 1);
        }
        while bit < FRACTION_BITS {
            x = ((x as u128 * x as u128) >> 31) as u64;
            log <<= 1;
            if x >= 1 << 32 {
                (x, log) = (x >> 1, log | 1);
            }
            bit += 1;
        }
        table[n] = log;
        n += 1;
    }
    table
};

/// Returns −log₂(`random` / 2⁶⁴), at most 65.
#[inline]
pub(super) fn negative_log2(random: u64) -> u64 {
    let zeros = random.leading_zeros().min(63);
    let mantissa = random << zeros;
    let at = (mantissa >> 55) as usize & 0xff;
    let rest = (mantissa >> (55 - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1);
    let (low, high) = (u64::from(LOG2[at]), u64::from(LOG2[at + 1]));
    let fraction = low + (((high - low) * rest) >> FRACTION_BITS);
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right() {
        for random in [1, 2, 3, 1 << 40, u64::MAX / 3, u64::MAX / 2, u64::MAX - 7, u64::MAX] {
            let exact = 64.0 - libm_log2(random);
            let fixed = negative_log2(random) as f64 / f64::from(1 << FRACTION_BITS);
            assert!((exact - fixed).abs() < 1e-5, "{random}: {exact} {fixed}");
        }
    }

    /// log₂ by halving an interval: no standard library here.
    fn libm_log2(n: u64) -> f64 {
        let (mut x, mut log) = (n as f64, 0.0);
        while x >= 2.0 {
            (x, log) = (x / 2.0, log + 1.0);
        }
        let mut bit = 0.5;
        for _ in 0..50 {
            x *= x;
            if x >= 2.0 {
                (x, log) = (x / 2.0, log + bit);
            }
            bit /= 2.0;
        }
        log
    }
}
