//! Nodes without configuration serve callers of their own host only.

use serde_json::Value as Json;
use zerocache_tests::http;
use zerocache_tests::namespace;
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup};

/// A node on this host, at its address on the cable.
fn here(access: Access) -> Setup {
    let mut setup = Setup::new("london").access(access).flag("--address", "10.1.0.1");
    setup.listen = "0.0.0.0:6789".parse().expect("an address");
    setup
}

/// A node on the other host.
fn far(access: Access) -> Setup {
    let mut setup = Setup::new("london").in_namespace("/run/netns/far".into()).access(access);
    setup.listen = "0.0.0.0:6789".parse().expect("an address");
    setup.flag("--address", "10.1.0.2")
}

fn alone(setup: Setup) -> Node {
    setup.flag("--discovery", "none").start_with_discovery()
}

#[test]
fn stranger_is_refused_and_caller_of_the_same_host_is_served() {
    let name = "stranger_is_refused_and_caller_of_the_same_host_is_served";
    namespace::run_with_links(name, || {
        namespace::script(namespace::SECOND_HOST);
        let near = alone(here(Access::Protected));
        for address in ["127.0.0.1:6789", "10.1.0.1:6789"] {
            let address = address.parse().expect("an address");
            let target = "/v1/entries/k?ttl=60";
            let put = http::send_with(address, None, "PUT", target, &[], b"v").expect("an answer");
            assert_eq!(put.status, 200, "{address}");
            let get = http::send_with(address, None, "GET", "/v1/entries/k", &[], b"");
            assert_eq!(get.expect("an answer").body, b"v", "{address}");
        }
        drop(near);

        let node = alone(far(Access::Protected));
        let address = "10.1.0.2:6789".parse().expect("an address");
        let send = |method, target, body: &[u8]| {
            http::send_with(address, None, method, target, &[], body).expect("an answer")
        };
        for (method, target) in [
            ("GET", "/v1/entries/k"),
            ("HEAD", "/v1/entries/k"),
            ("PUT", "/v1/entries/k?ttl=60"),
            ("DELETE", "/v1/entries/k"),
            ("GET", "/v1/cluster"),
            ("GET", "/v1/stats"),
            ("POST", "/v1/messages"),
            ("GET", "/anything"),
        ] {
            let answer = send(method, target, b"");
            assert_eq!(answer.status, 403, "{method} {target}");
            if method != "HEAD" {
                assert_eq!(answer.code(), "protected", "{method} {target}");
                let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
                assert!(message.contains("ZEROCACHE_SECRET"), "{message}");
                assert!(message.contains("--insecure"), "{message}");
            }
        }
        for target in ["/ping", "/healthz", "/readyz"] {
            assert_eq!(send("GET", target, b"").status, 200, "{target}");
        }
        assert!(node.log().contains("--insecure"), "{}", node.log());
        drop(node);

        let open = alone(far(Access::Insecure));
        assert_eq!(send("PUT", "/v1/entries/k?ttl=60", b"v").status, 200);
        assert!(open.log().contains("WARN"), "{}", open.log());
    });
}

#[test]
fn nodes_that_refuse_each_other_say_so_and_are_not_ready() {
    let name = "nodes_that_refuse_each_other_say_so_and_are_not_ready";
    namespace::run_with_links(name, || {
        namespace::script(namespace::SECOND_HOST);
        let _far = alone(far(Access::Protected));
        let seeds = here(Access::Protected).flag("--seed", "10.1.0.2:6789");
        let node = seeds.flag("--warm-max", "6s").flag("--discovery", "seeds");
        let node = node.start_with_discovery();
        let refused = || -> Json { node.http("GET", "/v1/cluster", b"").json()["refused"].clone() };
        until_true("the refusal in the view", || {
            refused()[0]["address"] == "10.1.0.2:6789" && refused()[0]["code"] == "protected"
        });
        assert!(!node.is_ready(), "a lonely node must not be authoritative at once");
        until_true("a log line", || node.log().contains("10.1.0.2:6789"));
        // It is not kept from its work for ever.
        until_true("readiness after --warm-max", || node.is_ready());
    });
}

/// Nodes of one cluster name on one subnet that start with different levels of security.
#[test]
fn nodes_of_different_levels_do_not_form_a_cluster() {
    let name = "nodes_of_different_levels_do_not_form_a_cluster";
    namespace::run_with_links(name, || {
        namespace::script(namespace::SECOND_HOST);
        let levels = [Access::Protected, Access::Insecure, Access::Secret(Keys::new())];
        for (n, far_level) in levels.iter().enumerate() {
            for (_, near_level) in levels.iter().enumerate().filter(|(m, _)| *m != n) {
                stay_apart(far_level, near_level);
            }
        }
    });
}

fn stay_apart(far_level: &Access, near_level: &Access) {
    let both = format!("{far_level:?} there, {near_level:?} here");
    let start = |setup: Setup, seed| {
        let setup = setup.flag("--seed", seed).flag("--discovery", "seeds");
        setup.flag("--warm-max", "6s").start_with_discovery()
    };
    let far = start(far(far_level.clone()), "10.1.0.1:6789");
    let near = start(here(near_level.clone()), "10.1.0.2:6789");
    until_true(&format!("warnings of both: {both}"), || {
        near.log().contains("10.1.0.2:6789") && far.log().contains("10.1.0.1:6789")
    });
    until_true(&format!("readiness: {both}"), || near.is_ready());
    near.put(b"k", b"v", "ttl=60");
    let refused = || near.http("GET", "/v1/cluster", b"").json()["refused"].clone();
    until_true(&format!("a refusal here: {both}"), || refused()[0]["address"] == "10.1.0.2:6789");
    // More than a second passes between the readiness of both and here.
    for node in [&near, &far] {
        assert!(!node.log().contains("node reachable"), "{both}: {}", node.log());
    }
    assert_eq!(near.cluster().len(), 1, "{both}");
}
