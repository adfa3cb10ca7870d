//! Events of the cluster: log lines, and reachability for discovery.

use std::net::SocketAddr;

use zerocache_core::{access::Denial, cluster::DialRefusal, node::Event};

/// Returns the addresses of a node whose reachability changed, and whether it is reachable now.
pub(super) fn reachability(event: &Event) -> impl Iterator<Item = (SocketAddr, bool)> {
    let (info, address, is_reachable) = match event {
        Event::MemberUp(info, address) => (Some(info), Some(*address), true),
        Event::MemberDown(info, address) => (Some(info), Some(*address), false),
        _ => (None, None, false),
    };
    let announced = info.into_iter().flat_map(|info| info.addresses.iter().copied());
    announced.chain(address).map(move |address| (address, is_reachable))
}

/// The most characters of a peer's message in a log line.
const TEXT_CHARS_MAX: usize = 200;

/// Returns what a log line shows of the message of a peer.
fn first_of(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

/// Logs an event.
pub(super) fn log(event: &Event) {
    match event {
        Event::MemberUp(info, address) => tracing::info!(
            peer = %info.incarnation, peer_region = info.region, %address, "node reachable"
        ),
        Event::MemberDown(info, address) => tracing::warn!(
            peer = %info.incarnation, peer_region = info.region, %address, "node unreachable"
        ),
        Event::MemberLeaving(info) => tracing::info!(
            peer = %info.incarnation, peer_region = info.region, "node leaving"
        ),
        Event::MemberForgotten(info) => tracing::info!(
            peer = %info.incarnation, peer_region = info.region, "node removed"
        ),
        Event::OtherCluster { address, text } => tracing::warn!(
            %address, "address belongs to another cluster: {text}"
        ),
        Event::PeerRefused { address, code: DialRefusal::Denied(Denial::Protected), .. } => {
            tracing::warn!(
                %address, code = "protected",
                "one of the two nodes serves its own host only, and they are on different hosts: give both \
                 the same secret (ZEROCACHE_SECRET_FILE), or start both with --insecure"
            );
        }
        // The transport has warned of it, with the reason.
        Event::PeerRefused { address, code: DialRefusal::Unverified, .. } => tracing::debug!(
            %address, code = "unverified", "peer cannot be verified, or does not accept this node"
        ),
        Event::PeerRefused { address, code, text } => tracing::warn!(
            %address, code = code.as_str(), "peer refused this node: {}", first_of(text)
        ),
        Event::AddressConflict { address, node } => tracing::warn!(
            %address, peer = %node, "address conflict: two live nodes claim this address"
        ),
        Event::WritesAbandoned { peer, count } => tracing::warn!(
            %peer, count, "replication to node abandoned"
        ),
        Event::WritesRefused { peer, count } => tracing::warn!(
            %peer, count, "node refused replicated writes: compare the clocks of both nodes"
        ),
        Event::ClockMoved { by_ms, restamped } => {
            tracing::warn!(by_ms, restamped, "clock corrected")
        }
        Event::ClockApart { peer, ahead_ms } => tracing::error!(
            %peer, ahead_ms,
            "the clocks of two nodes differ by more than a day: their entries are not compared until the \
             wrong clock is set and that node restarted"
        ),
        Event::FullResync { peer, entries_dropped } => tracing::warn!(
            %peer, entries_dropped, "full resync completed: this node had missed too much"
        ),
        Event::CopyComplete { source, entries } => tracing::info!(
            peer = %source, entries, "copied entries from peer"
        ),
        other => tracing::info!(?other, "cluster event"),
    }
}
