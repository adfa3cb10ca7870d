//! The client of zerocache, and the attribute that memoizes functions through it.
//!
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    feature = "macros",
    doc = r#"
```no_run
use zerocache_client::{ZerocacheClient, zerocache};

#[zerocache(ttl = 42)]
async fn price(product: u64) -> Result<u64, std::io::Error> {
    // A slow query; its result is shared by every process in every region for 42 seconds.
    Ok(product * 100)
}

# async fn example() -> Result<(), Box<dyn std::error::Error>> {
let cents = price(7).await?;

let cache = ZerocacheClient::from_env();
cache.put("greeting", "hello", 60).await?;
# Ok(())
# }
```

- [`zerocache`](macro@zerocache): the attribute; its guide is [`guide::memoize`]."#
)]
//! - [`ZerocacheClient`]: `get`, `put` and `delete`, also of many keys, and `changes` of them; [`ClientBuilder`] configures it. Its
//!   guide is [`guide::client`].
//! - [`ops`]: operations and their parts. [`memo`]: memoized calls.
//! - [`report`]: reports of single operations. [`stats`]: counters.
//! - [`error`]: reasons of errors. [`codec`]: bytes of typed values.
//!
//! The variable `ZEROCACHE_REGION` names the region of the process. Clients find nodes by mDNS, and by the variables `ZEROCACHE_SEED` and `ZEROCACHE_DNS`. A memoized call
//! never fails because of the cache: without a reachable node the function computes its value.
//!
//! # Features
//!
//! All are enabled by default, but for `testing`.
//!
//! | feature | without it |
//! |---|---|
//! | `http-fallback` | nodes for which something refuses framed connections are not reached |
//! | `lz4` | values are stored uncompressed, and compressed values of other clients count as unreadable |
//! | `macros` | there is no `#[zerocache]`; [`get_or_compute`](ZerocacheClient::get_or_compute) memoizes |
//! | `mdns` | nodes are found by seeds and DNS only |
//! | `messagepack` | values that bincode does not read back are not stored, and those of other clients count as unreadable |
//! | `tls` | there is no encryption: tokens, secrets and certificates are refused, unless TLS is said to be off |
//! | `testing` | there are no nodes in the process of a test, and no clock that it moves |
//! | `metrics` | nothing is published through the `metrics` facade; [`stats`] are counted all the same |

// The attribute's expansion says `::zerocache_client`, in this crate's own tests too.
extern crate self as zerocache_client;

mod client;
pub mod codec;
mod counters;
pub mod error;
pub mod guide;
mod lease;
mod lifetime;
pub mod memo;
mod near;
pub mod ops;
pub mod report;
pub mod stats;
#[cfg(feature = "testing")]
pub mod testing;
mod wait;

pub use client::{ClientBuilder, Entry, ZerocacheClient};
pub use codec::Value;
pub use error::{Error, ErrorKind};
pub use zerocache_core::{
    version::Version,
    wire::{Ack, Status, Written},
};
#[cfg(feature = "macros")]
#[cfg_attr(docsrs, doc(cfg(feature = "macros")))]
pub use zerocache_macros::zerocache;

/// For the attribute's expansion only; no part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::memo::private::*;
}
