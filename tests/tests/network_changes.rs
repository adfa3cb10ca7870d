//! Changes of a running node's network: interfaces, addresses, names; and reports of missing
//! sources.

use std::net::SocketAddr;

use serde_json::Value as Json;
use tokio::sync::mpsc;
use zerocache_net::discovery::{Discovery, DiscoveryConfig, Event, MdnsConfig};
use zerocache_tests::http;
use zerocache_tests::namespace;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, until_true};
use zerocache_tests::setup::Setup;

/// Both ends of a veth pair in this namespace, so that the interface has a carrier.
fn cable(name: &str, address: &str) -> String {
    format!(
        "ip link add {name} type veth peer name {name}end\n\
         ip address add {address} dev {name}\n\
         ip link set {name} up\n\
         ip link set {name}end up\n"
    )
}

/// A node that announces the address of the machine.
fn on_the_machine(region: &str, port: u16) -> Setup {
    let mut setup = Setup::new(region);
    setup.listen = SocketAddr::from(([0, 0, 0, 0], port));
    setup.for_other_hosts()
}

fn view(node: &Node) -> Json {
    node.http("GET", "/v1/cluster", b"").json()
}

/// Returns the state that a node reports for a source.
fn state(node: &Node, name: &str) -> String {
    let view = view(node);
    let sources = view["discovery"].as_array().cloned().unwrap_or_default();
    let source = sources.iter().find(|source| source["name"] == name);
    let source = source.unwrap_or_else(|| panic!("{name} is in {view}"));
    source["state"].as_str().expect("a state").to_owned()
}

/// Returns the address that a node reports for itself, and those of the nodes that it reaches.
fn addresses(node: &Node) -> Vec<String> {
    let nodes = view(node)["nodes"].as_array().cloned().unwrap_or_default();
    let reached = nodes.iter().filter(|node| node["state"] != "unreachable");
    reached.filter_map(|node| Some(node["address"].as_str()?.to_owned())).collect()
}

#[test]
fn late_interface_is_announced_on() {
    namespace::run("late_interface_is_announced_on", || {
        let setup = on_the_machine("london", 6789).flag("--discovery", "mdns");
        let node = setup.flag("--mdns-interface", "later0").start_with_discovery();
        until_true("a warning that names it", || node.log().contains("mDNS interface is missing"));
        assert!(node.log().contains("later0"), "{}", node.log());
        assert!(!node.log().contains("announced by mDNS"), "{}", node.log());
        assert_eq!(state(&node, "later0"), "no-interface");

        namespace::script(&cable("later0", "10.1.0.1/24"));
        until_true("an announcement", || node.log().contains("announced by mDNS"));
        until_true("all is well", || state(&node, "later0") == "works");
        let found = found_on("later0", "10.1.0.1:6789");
        assert!(found, "others find it there");

        // It goes, and comes again.
        namespace::script("ip link del later0");
        until_true("it is missed", || state(&node, "later0") == "no-interface");
        namespace::script(&cable("later0", "10.1.0.1/24"));
        until_true("all is well again", || state(&node, "later0") == "works");
        assert!(found_on("later0", "10.1.0.1:6789"), "others find it there again");
    });
}

/// Returns whether mDNS on an interface finds a node at an address.
fn found_on(interface: &str, address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut config = DiscoveryConfig::new("zerocache");
        let interface = Some(interface.parse().expect("an interface"));
        config.mdns = Some(MdnsConfig { interface });
        let (sender, mut events) = mpsc::channel(16);
        let discovery = Discovery::start(config, sender).expect("a good configuration");
        let found = async {
            while let Some(event) = events.recv().await {
                if let Event::Proposed(proposal) = event
                    && proposal.addresses.contains(&address)
                {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, found).await.unwrap_or(false);
        discovery.shutdown().await;
        found
    })
}

#[test]
fn node_is_reached_at_the_new_address_of_its_machine() {
    namespace::run("node_is_reached_at_the_new_address_of_its_machine", || {
        namespace::script(&cable("one", "10.1.0.1/24"));
        let mut setup = Setup::new("london");
        setup.listen = "127.0.0.9:6789".parse().expect("an address");
        let peer = setup.flag("--discovery", "none").start_with_discovery();
        let setup = on_the_machine("london", 6790).flag("--seed", peer.address());
        let node = setup.flag("--discovery", "seeds").start_with_discovery();
        let at = |ip: &str| {
            until_true(ip, || addresses(&node)[0] == ip);
            until_true(ip, || node_at(&peer, 6790).as_deref() == Some(ip));
        };
        at("10.1.0.1");
        // A further interface changes nothing.
        namespace::script(&cable("two", "10.2.0.1/24"));
        namespace::script("ip link del one");
        // Connections to 10.1.0.1 are dead.
        at("10.2.0.1");
        peer.put(b"k", b"v", "ttl=60&ack=region");
        until_true("a write that arrives", || node.value(b"k").as_deref() == Some(&b"v"[..]));
    });
}

#[test]
fn node_started_before_its_network_is_reached_once_it_is_up() {
    namespace::run("node_started_before_its_network_is_reached_once_it_is_up", || {
        let setup = on_the_machine("london", 6789).flag("--discovery", "mdns");
        let node = setup.start_with_discovery();
        assert_eq!(addresses(&node), ["127.0.0.1"]);
        namespace::script(&cable("late0", "10.1.0.1/24"));
        until_true("its own address", || addresses(&node) == ["10.1.0.1"]);
        assert!(found_on("late0", "10.1.0.1:6789"), "others find it there");
        let there = "10.1.0.1:6789".parse().expect("an address");
        assert_eq!(http::send(there, "GET", "/ping", &[], b"").expect("an answer").status, 200);
    });
}

/// Returns the address at which a node reaches the one with this port.
fn node_at(node: &Node, port: u16) -> Option<String> {
    let nodes = view(node)["nodes"].as_array().cloned().unwrap_or_default();
    let there = nodes.iter().find(|node| node["port"] == port && node["state"] == "in-sync");
    Some(there?["address"].as_str()?.to_owned())
}

/// Returns whether a node reaches another one at an address.
fn reaches(node: &Node, ip: &str) -> bool {
    addresses(node).iter().any(|address| address == ip)
}

#[test]
fn missing_sources_are_named() {
    let live = Setup::new("london").start();
    // The second has no listener; the third has an empty label, which is not sent to a resolver.
    let setup = Setup::new("london").flag("--seed", live.address());
    let setup = setup.flag("--seed", "127.0.0.1:1").flag("--dns", "a..b:6789");
    let node = setup.flag("--discovery", "seeds,dns").start_with_discovery();
    until_true("the live one works", || state(&node, &live.address().to_string()) == "works");
    until_true("the name is missed", || state(&node, "a..b:6789") == "unresolved");
    until_true("the seed is missed", || state(&node, "127.0.0.1:1") == "silent");
    until_true("both are named", || {
        let log = node.log();
        let line = |what: &str, name: &str| {
            log.lines().any(|l| l.contains("WARN") && l.contains(what) && l.contains(name))
        };
        line("name does not resolve", "a..b:6789")
            && line("no node of the cluster answers at these addresses", "127.0.0.1:1")
    });
    let silent = |line: &&str| line.contains("no node of the cluster answers at these addresses");
    assert_eq!(node.log().lines().filter(silent).count(), 1, "{}", node.log());
}

#[test]
fn dead_seed_is_reported_and_a_returning_one_cleared() {
    let mut live = Setup::new("london").start();
    let node = Setup::new("london").flag("--seed", live.address()).start();
    let name = live.address().to_string();
    until_true("the seed works", || state(&node, &name) == "works");
    live.kill();
    until_true("the seed is missed", || state(&node, &name) == "silent");
    until_true("a warning", || {
        node.log().contains("no node of the cluster answers at these addresses")
    });
    let mut again = Setup::new("london");
    again.listen = live.address();
    let _again = again.start();
    until_true("the seed works again", || state(&node, &name) == "works");
    until_true("a line", || node.log().contains("discovery source works again"));
}

#[test]
fn address_conflict_is_reported_by_both_nodes() {
    // As two containers that announce 172.17.0.2, reached through the ports of their hosts.
    let claim = |listen: &str| {
        let mut setup = Setup::new("london");
        setup.listen = "0.0.0.0:6789".parse().expect("an address");
        setup.flag("--address", "127.0.0.99").flag("--listen", listen)
    };
    let first = claim("127.0.0.41:0").start();
    let second = claim("127.0.0.42:0").flag("--seed", first.address()).start();
    for node in [&first, &second] {
        until_true("a conflict that is counted", || {
            view(node)["address_conflicts"].as_u64().is_some_and(|count| count > 0)
        });
        until_true("a conflict that is logged", || {
            node.log().contains("address conflict: two live nodes claim this address")
        });
        assert!(node.log().contains("127.0.0.99:6789"), "{}", node.log());
    }
}

#[test]
fn address_conflict_is_reported_by_the_seed() {
    let seed = Setup::new("london").start();
    let _both = ["127.0.0.43:0", "127.0.0.44:0"].map(|listen| {
        let mut setup = Setup::new("london");
        setup.listen = "0.0.0.0:6789".parse().expect("an address");
        let setup = setup.flag("--address", "127.0.0.98").flag("--listen", listen);
        setup.flag("--seed", seed.address()).start()
    });
    until_true("a conflict that is counted", || {
        view(&seed)["address_conflicts"].as_u64().is_some_and(|count| count > 0)
    });
}

/// A node in a namespace of its own, joined to this one by two cables: one has IPv4, one IPv6.
const TWO_CABLES: &str = "mount -t tmpfs tmpfs /run
ip netns add far
ip link add v4 type veth peer name eth0 netns far
ip link add v6 type veth peer name eth1 netns far
ip address add 10.1.0.1/24 dev v4
ip address add fd00:1::1/64 dev v6 nodad
ip link set v4 up
ip link set v6 up
ip -n far address add 10.1.0.2/24 dev eth0
ip -n far address add fd00:1::2/64 dev eth1 nodad
ip -n far link set lo up
ip -n far link set eth0 up
ip -n far link set eth1 up";

#[test]
fn multi_homed_node_is_reached_at_its_other_address() {
    let name = "multi_homed_node_is_reached_at_its_other_address";
    namespace::run_with_links(name, || {
        namespace::script(TWO_CABLES);
        let here = on_the_machine("london", 6789).flag("--address", "10.1.0.1");
        let here = here.flag("--address", "fd00:1::1").flag("--discovery", "none");
        let here = here.start_with_discovery();
        let far = far().flag("--address", "10.1.0.2").flag("--address", "fd00:1::2");
        // One family is enough to find each other.
        let far = far.flag("--seed", "10.1.0.1:6789").flag("--discovery", "seeds");
        let _far = far.start_with_discovery();
        let at = |ip: &str| until_true(ip, || reaches(&here, ip));
        // Whichever answered first.
        until_true("either", || reaches(&here, "10.1.0.2") || reaches(&here, "fd00:1::2"));
        let (v4, v6) =
            (("v4", "10.1.0.2", "10.1.0.2:6789"), ("v6", "fd00:1::2", "[fd00:1::2]:6789"));
        let (first, second) = if reaches(&here, v4.1) { (v4, v6) } else { (v6, v4) };
        namespace::script(&format!("ip link set {} down", first.0));
        at(second.1);
        here.put(b"k", b"v", "ttl=60&ack=region");
        assert_eq!(value_at(second.2, "k").as_deref(), Some(&b"v"[..]));
        // And back, when that one falls silent.
        namespace::script(&format!("ip link set {} up\nip link set {} down", first.0, second.0));
        at(first.1);
    });
}

#[test]
fn ipv6_only_nodes_find_each_other() {
    namespace::run_with_links("ipv6_only_nodes_find_each_other", || {
        namespace::script(TWO_CABLES);
        namespace::script("ip link set v4 down");
        let here = on_the_machine("london", 6789).flag("--address", "fd00:1::1");
        let here = here.flag("--discovery", "mdns").start_with_discovery();
        let far = far().flag("--discovery", "mdns");
        let far = far.flag("--address", "fd00:1::2").start_with_discovery();
        until_true("each other", || reaches(&here, "fd00:1::2"));
        here.put(b"k", b"v", "ttl=60&ack=region");
        assert_eq!(value_at("[fd00:1::2]:6789", "k").as_deref(), Some(&b"v"[..]));
        drop(far);
    });
}

/// A node in the far namespace.
fn far() -> Setup {
    on_the_machine("london", 6789).in_namespace("/run/netns/far".into())
}

/// Returns the value that the node at an address has for a key.
fn value_at(node: &str, key: &str) -> Option<Vec<u8>> {
    let node = node.parse().expect("an address");
    let target = format!("/v1/entries/{key}");
    let answer = http::send(node, "GET", &target, &[], b"").expect("an answer");
    (answer.status == 200).then_some(answer.body)
}
