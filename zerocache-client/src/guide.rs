//! Guides: how to use the client and the attribute.

#[doc = include_str!("../docs/client.md")]
pub mod client {}

#[doc = include_str!("../docs/memoize.md")]
pub mod memoize {}
