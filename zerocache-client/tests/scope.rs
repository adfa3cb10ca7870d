//! A scope replaces the client of every memoized call inside of it.

#![cfg(feature = "macros")]

mod support;

use support::{bounded, other};
use zerocache_client::zerocache;

#[zerocache("london", 60)]
async fn inner(n: u64) -> u64 {
    n
}

#[zerocache(panic_if_evaluated(), 60, call = scoped_sync_call)]
fn scoped_sync(n: u64) -> u64 {
    n
}

fn panic_if_evaluated() -> &'static str {
    panic!("the region is not looked at inside a scope")
}

#[tokio::test]
async fn calls_inside_use_the_scope() {
    bounded(async {
        let (scope, nested) = (other("scope"), other("nested"));
        scope
            .scope(async {
                assert_eq!(inner(1).await, 1);
                assert_eq!(nested.scope(inner(1)).await, 1, "also when made outside of it");
                assert_eq!(inner(1).await, 1);
                assert_eq!(scoped_sync(1), 1);
            })
            .await;
        let stats = scope.memo_stats();
        assert_eq!(stats.hits + stats.misses, 3);
        let stats = nested.memo_stats();
        assert_eq!(stats.hits + stats.misses, 1);
        // A call made inside keeps the scope's client.
        let made_inside = scope.scope_sync(|| scoped_sync_call(2));
        assert_eq!(made_inside.await, 2);
        assert_eq!(scope.memo_stats().misses, 3);
    })
    .await;
}

#[test]
fn panic_ends_the_scope() {
    let scope = other("panicking-scope");
    let result = std::panic::catch_unwind(|| scope.scope_sync(|| panic!("on purpose")));
    assert!(result.is_err());
    let outside = inner(3).key();
    assert!(outside.is_some());
    // Outside of every scope the attribute's own region is looked at again.
    assert!(std::panic::catch_unwind(|| scoped_sync(3)).is_err());
}
