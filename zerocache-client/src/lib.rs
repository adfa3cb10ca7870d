//! The client of zerocache, and the attribute that memoizes functions through it.
//!
//! ```no_run
//! use zerocache_client::{ZerocacheClient, zerocache};
//!
//! #[zerocache("london", 42)]
//! async fn price(product: u64) -> Result<u64, std::io::Error> {
//!     // A slow query; its result is shared by every process in every region for 42 seconds.
//!     Ok(product * 100)
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cents = price(7).await?;
//!
//! let cache = ZerocacheClient::get_instance("london");
//! cache.put("greeting", "hello", 60).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nodes are found by mDNS, and by the variables `ZEROCACHE_SEED` and `ZEROCACHE_DNS`. A cluster that
//! is not there fails no memoized call: the function computes.
//!
//! - [`zerocache`](macro@zerocache): the attribute; `docs/memoize.md` is its guide.
//! - [`ZerocacheClient`]: `get`, `put`, `delete`, of many keys too, and the settings of a client;
//!   `docs/client.md` is its guide.
//! - [`codec`]: how typed values become bytes.

// The attribute's expansion says `::zerocache_client`, in this crate's own tests too.
extern crate self as zerocache_client;

mod client;
pub mod codec;
mod error;
mod memo;
mod near;
mod wait;

pub use client::{
    Attempted, ClientBuilder, ClientStats, Entry, Explain, Explained, Get, GetEntry, GetMany,
    GetManyEach, GetValue, NodeStatus, Outcome, Report, ReportedNode, Said, Write, WriteMany,
    WriteManyEach, ZerocacheClient,
};
pub use codec::{IntoValue, Value};
pub use error::{Error, ErrorKind};
pub use memo::{
    Beside, Blocking, Cacheable, Call, CallOutcome, CallReport, CallWrite, ExplainCall, Invalidate,
    KeyPart, LeaseOutcome, LeaseScope, Lifetime, MayFail, MaybeNone, MemoStats, Mismatch, Peek,
    ReceiverKeyPart, RegionOrClient, Scope, Tag,
};
pub use near::NearStats;
pub use zerocache_core::{
    metadata::{Encoding, Freshness, Kind, Metadata, TagError},
    route::Tier,
    version::{Incarnation, Version},
    wire::{Ack, Status, Written},
};
pub use zerocache_macros::zerocache;
pub use zerocache_net::transport::Connections;

/// Compiles the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/memoize.md")]
pub struct Guide;

/// Compiles the examples of the client's page.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
pub struct Calls;

/// For the attribute's expansion only; no part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::memo::private::*;
}
