//! The cache that these tests run against. They need nothing else of it, so that what stands
//! behind these two functions can be changed here alone.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::future::Future;
use std::time::Duration;

use zerocache_client::ZerocacheClient;

/// A client of a cache that works.
pub fn client() -> ZerocacheClient {
    ZerocacheClient::get_instance("london")
}

/// A client that reaches no node.
pub fn dead() -> ZerocacheClient {
    ZerocacheClient::get_instance("dead")
}

/// Another client of the same cache, with counts of its own.
pub fn other(name: &str) -> ZerocacheClient {
    ZerocacheClient::get_instance(name)
}

/// Runs a test whose memoized calls all use [`client`], and ends it when it hangs.
pub async fn cached<F: Future>(test: F) -> F::Output {
    bounded(client().scope(test)).await
}

/// Ends a test that hangs.
pub async fn bounded<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), test)
        .await
        .expect("the test hangs")
}
