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

/// Runs a test that blocks on a thread of its own, and ends it when it hangs.
pub fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        let _ = done.send(());
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    finished
        .recv_timeout(Duration::from_secs(20))
        .expect("the test hangs");
    thread.join().expect("the test passes");
}

/// A runtime of one thread, to block in.
pub fn current_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}
