//! The time until a dead node leaves the rotations of others, and until it is back.

use std::time::Duration;

use zerocache_client::ZerocacheClient;
use zerocache_net::clock;

use crate::net::{Net, REGIONS};
use crate::poll::pass;

/// The most that is waited: far more than is promised, so that the figure is known.
const BOUND: Duration = Duration::from_secs(30);

/// A failure of a node without notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL.
    Killed,
    /// SIGSTOP.
    Stopped,
    /// Nothing to it or from it passes.
    BlackHoled,
}

impl Death {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Killed, Self::Stopped, Self::BlackHoled];
}

/// The result of the measurement; none for an event that did not happen.
#[derive(Clone, Copy, Debug)]
pub struct Detection {
    /// From the fault until the last other node had it out of its rotation.
    pub out_of_nodes: Option<Duration>,
    /// From the fault until the client had it out of its rotation.
    pub out_of_client: Option<Duration>,
    /// From its return until the last other node had it in its rotation.
    pub back_in_nodes: Option<Duration>,
    /// From its return until the client had it in its rotation.
    pub back_in_client: Option<Duration>,
}

/// Makes node `n` of the first region fail, waits until all others have noticed, and brings it
/// back. An otherwise idle client of that region observes it too.
///
/// # Panics
///
/// If the network cannot be changed.
pub fn measure(net: &mut Net, n: usize, death: Death) -> Detection {
    let client = net.cluster.client(REGIONS[0]);
    // Measured from before the fault, which takes a moment to bring about.
    let began = clock::elapsed();
    match death {
        Death::Killed => net.cluster[n].kill(),
        Death::Stopped => net.cluster[n].freeze(),
        Death::BlackHoled => net.black_hole(n),
    }
    let (out_of_nodes, out_of_client) = watch(net, &client, n, began, false);
    // Long enough for its connections and views to be stable.
    pass(Duration::from_secs(1));
    let began = match death {
        Death::Killed => {
            net.restart(n);
            clock::elapsed()
        }
        Death::Stopped => {
            let began = clock::elapsed();
            net.cluster[n].resume();
            began
        }
        Death::BlackHoled => {
            let began = clock::elapsed();
            net.repair_link(n);
            began
        }
    };
    let (back_in_nodes, back_in_client) = watch(net, &client, n, began, true);
    net.cluster.wait_until_joined();
    Detection { out_of_nodes, out_of_client, back_in_nodes, back_in_client }
}

/// The moments, since `began`, at which all other nodes and the client have node `n` in their
/// rotation, or out of it.
fn watch(
    net: &Net,
    client: &ZerocacheClient,
    n: usize,
    began: Duration,
    wanted: bool,
) -> (Option<Duration>, Option<Duration>) {
    let address = net.address(n);
    let mut waiting: Vec<usize> = (0..net.len()).filter(|other| *other != n).collect();
    let (mut of_nodes, mut of_client) = (None, None);
    while of_nodes.is_none() || of_client.is_none() {
        waiting.retain(|other| {
            let in_rotation = net.cluster[*other].unreachable().map(|out| !out.contains(&address));
            in_rotation != Some(wanted)
        });
        let passed = clock::elapsed().saturating_sub(began);
        if waiting.is_empty() {
            of_nodes.get_or_insert(passed);
        }
        let nodes = client.nodes();
        // A node that stood there before is out; the one that counts is the latest.
        if nodes.iter().any(|node| node.address == address && node.in_rotation) == wanted {
            of_client.get_or_insert(passed);
        }
        if passed > BOUND {
            break;
        }
        pass(Duration::from_millis(5));
    }
    (of_nodes, of_client)
}
