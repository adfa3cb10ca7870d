#![deny(deprecated, unused_must_use, missing_docs)]
//! Built-in attributes keep their meaning.

use zerocache_client::zerocache;

#[deprecated]
#[zerocache("london", 42)]
#[must_use]
fn above(n: u64) -> u64 {
    n
}

#[zerocache("london", 42, call = below_call)]
#[deprecated]
#[must_use]
/// Documented.
pub fn below(n: u64) -> u64 {
    n
}

/// Documented.
pub fn user() {
    above(1);
    below(1);
    below_call(1);
}

fn main() {}
