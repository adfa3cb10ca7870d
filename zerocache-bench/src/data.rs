//! Keys, values and the sequence of operations: prepared before anything is measured.

use anyhow::{Result, ensure};
use bytes::Bytes;
use zerocache_tests::random::Random;

use crate::popularity::Popularity;

/// The length of every key: that of a hash in hexadecimal.
pub const KEY_BYTES: usize = 32;
/// The end of its key stands at the beginning of each value, so that a mixed-up answer is noticed.
pub const MARK_BYTES: usize = 8;
/// The last byte of each value, so that a truncated answer is noticed.
const LAST: u8 = b'.';
/// Operations after which the sequence begins again; a power of two.
const STEPS: usize = 1 << 18;
/// The lifetime of everything that is stored: longer than any run.
pub const TTL_SECONDS: u32 = 3_600;

/// One operation.
#[derive(Clone, Copy)]
pub struct Step {
    pub key: u32,
    pub write: bool,
}

/// The keys, values and operations of all contenders.
pub struct Data {
    keys: Vec<String>,
    values: Vec<Bytes>,
    steps: Vec<Step>,
    value_bytes: usize,
}

impl Data {
    pub fn new(keys: usize, value_bytes: usize, skew: f64, read_share: f64, seed: u64) -> Self {
        let (popularity, mut random) = (Popularity::new(keys, skew), Random::new(seed));
        let steps = (0..STEPS)
            .map(|_| Step {
                key: popularity.draw(&mut random) as u32,
                write: random.unit() >= read_share,
            })
            .collect();
        let keys: Vec<String> = (0..keys).map(key).collect();
        let values = keys.iter().map(|key| value(key, value_bytes)).collect();
        Self { keys, values, steps, value_bytes }
    }

    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub fn key(&self, index: usize) -> &str {
        &self.keys[index]
    }

    pub fn value(&self, index: usize) -> &Bytes {
        &self.values[index]
    }

    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The operation at a place of the endless sequence.
    pub fn step(&self, at: usize) -> Step {
        self.steps[at % STEPS]
    }

    /// Refuses what is not the value of this key.
    pub fn check(&self, index: usize, found: &[u8]) -> Result<()> {
        let key = self.key(index);
        ensure!(
            found.len() == self.value_bytes,
            "{key}: {} bytes instead of {}",
            found.len(),
            self.value_bytes
        );
        let mark = mark(key.as_bytes());
        ensure!(found.starts_with(mark) && found.ends_with(&[LAST]), "{key}: another value");
        Ok(())
    }
}

/// The bytes of a key that its value begins with.
pub fn mark(key: &[u8]) -> &[u8] {
    &key[key.len() - MARK_BYTES..]
}

/// A value for `key`, of random bytes: clients that compress large values find nothing to save.
pub fn value(key: &str, value_bytes: usize) -> Bytes {
    let mark = mark(key.as_bytes());
    let seed = mark.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut random = Random::new(seed);
    let mut value = Vec::with_capacity(value_bytes.next_multiple_of(size_of::<u64>()));
    while value.len() < value_bytes {
        value.extend_from_slice(&random.bits().to_le_bytes());
    }
    value.truncate(value_bytes);
    value[..MARK_BYTES].copy_from_slice(mark);
    value[value_bytes - 1] = LAST;
    value.into()
}

fn key(index: usize) -> String {
    format!("key{index:0>width$}", width = KEY_BYTES - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_of_the_key_passes() {
        let data = Data::new(20, 64, 0.0, 1.0, 1);
        assert_eq!(data.key(7).len(), KEY_BYTES);
        data.check(7, data.value(7)).expect("its own value");
        data.check(7, data.value(8)).expect_err("another key's value");
        data.check(7, &data.value(7)[..63]).expect_err("a truncated value");
        data.check(7, b"").expect_err("nothing");
    }

    #[test]
    fn values_do_not_compress() {
        let value = value("key00000001", 65_536);
        assert_eq!(value.len(), 65_536);
        let mut counts = [0_u32; 256];
        value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (128..512).contains(count)), "{counts:?}");
    }

    #[test]
    fn write_share_is_respected() {
        let data = Data::new(20, 64, 0.0, 0.9, 1);
        let writes = (0..10_000).filter(|at| data.step(*at).write).count();
        assert!((800..1_200).contains(&writes), "{writes}");
    }
}
