//! The attribute, used from a crate of edition 2021 that renames its dependency.
//!
//! The edition of the macro's crate decides which lifetimes the returned future captures; were it
//! the caller's, the borrowed arguments here would not compile.

// Lints that are silent by default, and must be so about the attribute's expansion too.
#![deny(
    clippy::used_underscore_binding,
    elided_lifetimes_in_paths,
    let_underscore_drop,
    non_ascii_idents,
    redundant_lifetimes,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unreachable_pub,
    unused_import_braces,
    unused_lifetimes,
    unused_macro_rules,
    unused_qualifications,
    unused_results
)]

use std::sync::Arc;

use cache::zerocache;

/// A service with borrowed state.
#[derive(serde::Serialize)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
}

impl Service<'_> {
    /// Borrows `self` and an argument.
    #[zerocache("london", 42)]
    pub async fn greet(&self, other: &str) -> String {
        format!("{} greets {other}", self.name)
    }

    /// The same, sync.
    #[zerocache("london", 42, call = greet_sync_call)]
    pub fn greet_sync(&self, other: &str) -> String {
        format!("{} greets {other}", self.name)
    }
}

/// Names the crate by hand.
#[zerocache("london", 42, crate = ::cache)]
pub async fn explicit<'a>(text: &'a str, prefix: Option<&'a str>) -> Result<usize, String> {
    let prefix = prefix.ok_or("no prefix")?;
    Ok(text.len() + prefix.len())
}

/// A parameter that is for the key alone.
#[zerocache("london", 42)]
pub async fn by_tenant(_tenant: u64) -> u64 {
    7
}

/// Every argument, with borrowed parameters.
///
/// Its links work: [`Service`], [`explicit`].
#[zerocache(
    "london",
    "5m",
    near = "500ms",
    lease(region, life = "10s", wait = "3s"),
    stale(while = "1m", if_error = "1h"),
    ahead = "30s",
    jitter = 10,
    negative(none = "5s", err = |e: &String| e.is_empty(), ttl = "5s"),
    tags = ["texts", format!("prefix:{prefix}")],
    cache_if = |length: &Option<usize>| *length != Some(0),
    ack = local,
    version = 2,
    name = "edition-2021::every"
)]
#[must_use]
pub async fn every<'a>(text: &'a str, prefix: &'a str) -> Result<Option<usize>, String> {
    let rest = text.strip_prefix(prefix).map(str::len);
    if text.is_empty() {
        return Err(String::new());
    }
    Ok(rest)
}

/// Refreshed behind its callers.
#[zerocache("london", "5m", skip(shared), stale(while = "1m", background), near)]
pub async fn behind(text: String, shared: Arc<str>) -> usize {
    text.len() + shared.len()
}

/// The same, sync.
#[zerocache("london", "5m", stale(while = "1m", background), call = behind_sync_call)]
pub fn behind_sync(text: String) -> usize {
    text.len()
}

/// A trait with its methods memoized.
pub trait Length: serde::Serialize {
    /// Its own.
    #[zerocache("london", 42, call = false, tags = ["lengths"])]
    #[allow(async_fn_in_trait)]
    async fn length(&self, text: &str) -> usize {
        text.len()
    }
}

impl Length for Service<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a future that is ready or waits for the client's own thread.
    fn run<F: std::future::Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = std::task::Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut context) {
                std::task::Poll::Ready(value) => return value,
                std::task::Poll::Pending => std::thread::park(),
            }
        }
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn async_functions_work_without_a_runtime_and_a_node() {
        off_the_network();
        let service = Service { name: "a" };
        assert_eq!(run(every("ab", "a")), Ok(Some(1)));
        assert_eq!(run(every("", "a")), Err(String::new()));
        assert_eq!(run(behind("text".to_owned(), Arc::from("x"))), 5);
        assert_eq!(run(service.length("four")), 4);
    }

    /// Keeps the attribute's client off the network: it has nowhere to look for nodes.
    fn off_the_network() {
        let client = cache::ZerocacheClient::builder("london").mdns(false).install();
        let _client = client.expect("the configuration is always the same");
    }

    #[test]
    fn sync_functions_work() {
        off_the_network();
        let name = String::from("a");
        let service = Service { name: &name };
        assert_eq!(service.greet_sync("b"), "a greets b");
        assert_eq!(service.greet_sync_call("b").wait(), "a greets b");
        assert_eq!(behind_sync("abc".to_owned()), 3);
        assert_eq!(behind_sync_call("abc".to_owned()).uncached().wait(), 3);
    }

    #[test]
    fn calls_borrow_their_arguments() {
        off_the_network();
        let name = String::from("a");
        let other = String::from("b");
        let service = Service { name: &name };
        let keys = [service.greet(&other).key(), service.greet("c").key()];
        assert!(keys.iter().all(Option::is_some));
        assert_ne!(keys[0], keys[1]);
        assert!(explicit("text", Some("p")).key().is_some());
        assert_ne!(by_tenant(1).key(), by_tenant(2).key());
        assert_ne!(every("ab", "c").key(), every("a", "bc").key());
        assert!(behind("text".to_owned(), Arc::from("x")).key().is_some());
    }
}
