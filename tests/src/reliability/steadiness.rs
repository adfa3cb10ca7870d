//! Faults that must not change a rotation, or only once: loss, short pauses, one-way links.

use std::time::Duration;

use crate::net::Net;
use crate::poll::pass;

/// The log lines of a node that takes another out of its rotation, and back.
const OUT: &str = "node unreachable";
const BACK: &str = "node reachable";

/// Changes of rotation that the nodes have logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A node was taken out.
    pub out: usize,
    /// A node was taken in.
    pub back: usize,
}

impl Changes {
    fn of(net: &Net, nodes: &[usize]) -> Self {
        let lines = |what: &str| {
            nodes.iter().map(|n| net.cluster[*n].log().matches(what).count()).sum::<usize>()
        };
        Self { out: lines(OUT), back: lines(BACK) }
    }

    fn since(self, before: Self) -> Self {
        Self { out: self.out - before.out, back: self.back - before.back }
    }
}

/// Returns the rotation changes that the nodes `of` log during `fault`.
fn changes(net: &mut Net, of: &[usize], fault: impl FnOnce(&mut Net)) -> Changes {
    let before = Changes::of(net, of);
    fault(net);
    Changes::of(net, of).since(before)
}

/// Drops packets everywhere for `time`; without datagrams if `tcp_only`. Returns the rotation
/// changes of all nodes; there must be none.
pub fn lossy(net: &mut Net, percent: u8, tcp_only: bool, time: Duration) -> Changes {
    let all: Vec<usize> = (0..net.len()).collect();
    if tcp_only {
        net.without_datagrams();
        // Nodes that used datagrams take a moment to do without.
        pass(Duration::from_secs(5));
    }
    let changes = changes(net, &all, |net| {
        net.lose_percent(percent);
        pass(time);
    });
    net.repair_all_links();
    changes
}

/// Freezes one node after the other for `pause`, `times` in all. Returns the rotation changes of
/// all nodes; there must be none.
pub fn pausing(net: &mut Net, pause: Duration, times: usize) -> Changes {
    let all: Vec<usize> = (0..net.len()).collect();
    changes(net, &all, |net| {
        for n in (0..net.len()).cycle().take(times) {
            net.cluster[n].freeze();
            pass(pause);
            net.cluster[n].resume();
            pass(Duration::from_millis(500));
        }
    })
}

/// The result of a one-way partition.
#[derive(Clone, Copy, Debug)]
pub struct OneWay {
    /// Changes of the two nodes that the link joins, while it was cut.
    pub ends: Changes,
    /// Rotation changes of all other nodes; there must be none.
    pub others: Changes,
    /// Whether each of the two nodes was out of the other's rotation at the end of the partition.
    pub apart: [bool; 2],
}

/// Drops packets from node `from` to node `to` for `time`, then stops dropping them.
///
/// # Panics
///
/// If the nodes do not reach each other again.
pub fn one_way(net: &mut Net, from: usize, to: usize, time: Duration) -> OneWay {
    let ends = [from, to];
    let others: Vec<usize> = (0..net.len()).filter(|n| !ends.contains(n)).collect();
    let before = (Changes::of(net, &ends), Changes::of(net, &others));
    net.cut_link(from, to);
    pass(time);
    let after = (Changes::of(net, &ends), Changes::of(net, &others));
    let has_out = |n: usize, other: usize| {
        net.cluster[n].unreachable().is_some_and(|out| out.contains(&net.address(other)))
    };
    let apart = [has_out(from, to), has_out(to, from)];
    net.repair_all_links();
    net.cluster.wait_until_joined();
    OneWay { ends: after.0.since(before.0), others: after.1.since(before.1), apart }
}
