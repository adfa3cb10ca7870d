//! Functions and clients without a region in code: `ZEROCACHE_REGION` names it. Each test runs in a process of
//! its own, with its own variables.

#![cfg(feature = "macros")]

mod support;

use std::future::Future;
use std::process::Command;

use support::{bounded, log};
use zerocache_client::{Error, ErrorKind, ZerocacheClient, zerocache};

#[zerocache]
async fn bare(n: u64) -> u64 {
    n
}

#[zerocache(ttl = "5m", near)]
fn blocking(n: u64) -> u64 {
    n
}

/// Says to a test that it runs in a process of its own.
const INSIDE: &str = "ENVIRONMENT_TEST_INSIDE";

/// Runs `test` again in a process of its own, with these variables; there it is `body` that runs.
fn with_variables(test: &str, variables: &[(&str, &str)], body: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime").block_on(bounded(body));
    }
    let mut command = Command::new(std::env::current_exe().expect("it has a path"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZEROCACHE_") {
            command.env_remove(name);
        }
    }
    let variables = variables.iter().copied();
    let ran = command.args(["--exact", test]).envs(variables).env(INSIDE, "1").output();
    let ran = ran.expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn attribute_without_a_region_uses_that_of_the_environment() {
    let test = "attribute_without_a_region_uses_that_of_the_environment";
    with_variables(test, &[("ZEROCACHE_REGION", "oslo")], async {
        assert_eq!((bare(1).await, bare(1).await), (1, 1));
        let cache = ZerocacheClient::from_env();
        assert_eq!(cache.region(), "oslo");
        let oslo = ZerocacheClient::get_instance("oslo").memo_stats();
        assert_eq!((oslo.computed, oslo.hits), (1, 1));
        assert_eq!(cache.memo_stats(), oslo, "both are the same client");
        assert_eq!((blocking(1), blocking(1)), (1, 1));
        // A scope replaces it, as it replaces a region in code.
        let other = ZerocacheClient::builder("paris").offline(true).build().expect("is allowed");
        assert_eq!(other.scope(bare(1)).await, 1);
        assert_eq!(other.memo_stats().computed, 1);
        // Another client of the region is used from then on.
        ZerocacheClient::clear_instance("oslo");
        let builder = ZerocacheClient::builder_from_env().expect("all variables are allowed");
        let installed = builder.near_bytes(0).install().expect("there is none yet");
        assert_eq!((bare(1).await, installed.region()), (1, "oslo"));
        assert_eq!(installed.memo_stats().computed, 1);
    });
}

#[test]
fn without_the_variable_functions_compute_and_one_error_names_it() {
    let test = "without_the_variable_functions_compute_and_one_error_names_it";
    with_variables(test, &[("ZEROCACHE_OFFLINE", "false")], async {
        log::collect();
        assert_eq!((bare(1).await, bare(1).await, blocking(2)), (1, 1, 2));
        let cache = ZerocacheClient::from_env();
        assert_eq!((cache.memo_stats().computed, cache.memo_stats().hits), (3, 0));
        for error in [
            cache.get("a").await.expect_err("it has no region"),
            ZerocacheClient::builder_from_env().expect_err("it has no region"),
        ] {
            assert!(matches!(&error, Error::Config(text) if text.contains("ZEROCACHE_REGION")));
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        assert_eq!(log::warnings("ZEROCACHE_REGION: not set").len(), 1);
    });
}

#[test]
fn wrong_region_is_named() {
    with_variables("wrong_region_is_named", &[("ZEROCACHE_REGION", "os lo")], async {
        log::collect();
        assert_eq!((bare(1).await, bare(1).await), (1, 1));
        assert_eq!(log::warnings("ZEROCACHE_REGION: ").len(), 1);
    });
}

#[test]
fn test_needs_no_region() {
    with_variables("test_needs_no_region", &[], async {
        assert_eq!((bare(1).await, bare(1).await), (1, 1));
        let stats = ZerocacheClient::from_env().memo_stats();
        assert_eq!((stats.computed, stats.hits), (1, 1));
    });
}
