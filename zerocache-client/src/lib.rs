//! zerocache-client

// The attribute's expansion says `::zerocache_client`, in this crate's own tests too.
extern crate self as zerocache_client;

mod client;
pub mod codec;
mod error;
mod memo;
mod wait;

pub use client::{Written, ZerocacheClient};
pub use codec::{IntoValue, Value};
pub use error::Error;
pub use memo::{
    Blocking, Cacheable, Call, Invalidate, KeyPart, Lifetime, MemoStats, Peek, ReceiverKeyPart,
    RegionOrClient, Scope,
};
pub use zerocache_macros::zerocache;

/// Compiles the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/memoize.md")]
pub struct Guide;

/// For the attribute's expansion only; no part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::memo::private::*;
}
