//! The network of the reliability tests itself: regions that find each other, and parts that can be
//! partitioned.

use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::Net;
use zerocache_tests::poll::until_true;

#[test]
fn nodes_of_a_region_find_each_other_by_mdns_and_those_of_another_by_one_seed() {
    let name = "nodes_of_a_region_find_each_other_by_mdns_and_those_of_another_by_one_seed";
    run_with_network(name, || {
        let mut net = Net::without_nodes(&[2, 2], |setup| setup);
        for n in 0..net.len() {
            let setup = net.setup_alone(n);
            let node = if n == 3 {
                setup.flag("--seed", net.address(0)).flag("--discovery", "mdns,seeds")
            } else {
                setup.flag("--discovery", "mdns")
            };
            net.cluster.nodes.push(node.start_with_discovery());
        }
        net.cluster.wait_until_joined();
        net.cluster[1].put(b"k", b"v", "ttl=60&ack=all");
        net.cluster.everywhere(b"k", |answer| answer.body == b"v");
    });
}

#[test]
fn partitioned_region_keeps_serving() {
    run_with_network("partitioned_region_keeps_serving", || {
        let mut net = Net::start(&[2, 2]);
        net.cut_region(1);
        let outside = |n: usize| net.address(n);
        for n in net.nodes_of(0) {
            until_true("the cut is noticed outside", || {
                net.cluster[n].unreachable() == Some(vec![outside(2), outside(3)])
            });
        }
        for n in net.nodes_of(1) {
            until_true("the cut is noticed inside", || net.cluster[n].reaches() == 2);
        }
        net.cluster[0].put(b"k", b"outside", "ttl=60&ack=region");
        net.cluster[2].put(b"k", b"inside", "ttl=60&ack=region");
        assert_eq!(net.cluster[1].value(b"k").as_deref(), Some(&b"outside"[..]));
        assert_eq!(net.cluster[3].value(b"k").as_deref(), Some(&b"inside"[..]));
        net.join_regions();
        net.cluster.wait_until_joined();
        net.cluster[0].put(b"k", b"joined", "ttl=60&ack=all");
        net.cluster.everywhere(b"k", |answer| answer.body == b"joined");
    });
}

#[test]
fn partitioned_node_leaves_every_other_rotation() {
    run_with_network("partitioned_node_leaves_every_other_rotation", || {
        let mut net = Net::start(&[2, 1]);
        net.cut_node(1);
        for n in [0, 2] {
            until_true("the cut is noticed", || {
                net.cluster[n].unreachable() == Some(vec![net.address(1)])
            });
        }
        until_true("it is alone", || net.cluster[1].reaches() == 1);
        net.repair_link(1);
        net.cluster.wait_until_joined();
    });
}
