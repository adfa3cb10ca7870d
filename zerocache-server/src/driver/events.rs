//! Events of the cluster: log lines, sentences for people, and reachability for discovery.

use std::net::SocketAddr;

use zerocache_core::{access::Denial, cluster::DialRefusal, node::Event, wire::NodeInfo};

use super::recent::{Severity, plain};

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
    plain(text, TEXT_CHARS_MAX)
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
            %address, "address belongs to another cluster: {}", first_of(text)
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
        Event::Placed { placement } => tracing::info!(
            placement = format_args!("{placement:016x}"),
            "all values offered to the owners of their keys"
        ),
        Event::NameConflict { name } => tracing::error!(
            name,
            "two nodes have the same name: neither owns keys until one of them has another --node-name"
        ),
        Event::AddressConflict { address, node } => tracing::warn!(
            %address, peer = %node, "address conflict: two live nodes claim this address"
        ),
        Event::PurgesIgnored(info) => tracing::warn!(
            peer = %info.incarnation, peer_region = info.region,
            "node of an earlier release: it passes purges on and does not obey them"
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

/// Returns the sentence that the node's page shows for an event, and how bad the event is.
pub(super) fn describe(event: &Event) -> (Severity, String) {
    use Severity::{Error, Info, Warn};
    match event {
        Event::MemberUp(info, address) => (Info, format!("{} reachable at {address}", name(info))),
        Event::MemberDown(info, address) => {
            (Error, format!("{} unreachable at {address}", name(info)))
        }
        Event::MemberLeaving(info) => (Warn, format!("{} is shutting down", name(info))),
        Event::MemberForgotten(info) => (Info, format!("{} removed", name(info))),
        Event::OtherCluster { address, text } => {
            (Warn, format!("{address} belongs to another cluster: {}", first_of(text)))
        }
        Event::PeerRefused { address, code, text } if text.is_empty() => {
            (Warn, format!("{address} refused this node: {}", code.as_str()))
        }
        Event::PeerRefused { address, code, text } => {
            let (code, text) = (code.as_str(), first_of(text));
            (Warn, format!("{address} refused this node: {code}: {text}"))
        }
        Event::Placed { .. } => {
            (Severity::Info, "this node offered all values to the owners of their keys".to_owned())
        }
        Event::NameConflict { name } => {
            (Severity::Error, format!("two nodes have the name {name}: neither owns keys"))
        }
        Event::AddressConflict { address, node } => {
            (Error, format!("two live nodes claim {address}; one is {node}"))
        }
        Event::PurgesIgnored(info) => {
            (Warn, format!("{} is of an earlier release and does not obey purges", name(info)))
        }
        Event::WritesAbandoned { peer, count } => {
            (Warn, format!("replication to {peer} abandoned; repair follows (writes: {count})"))
        }
        Event::WritesRefused { peer, count } => (
            Warn,
            format!("{peer} refused replicated writes: compare the clocks (writes: {count})"),
        ),
        Event::ClockMoved { by_ms, .. } => (Warn, format!("clock corrected by {by_ms} ms")),
        Event::ClockApart { peer, ahead_ms } => {
            (Error, format!("the clock of {peer} differs by {ahead_ms} ms"))
        }
        Event::FullResync { peer, entries_dropped } => {
            let dropped = format!("{entries_dropped} entries dropped so far");
            (Warn, format!("compared everything with {peer} after missing too much; {dropped}"))
        }
        Event::CopyComplete { source, entries } => {
            (Info, format!("copied {entries} entries from {source}"))
        }
        other => (Info, format!("{other:?}")),
    }
}

fn name(info: &NodeInfo) -> String {
    format!("node {} in {}", info.incarnation, info.region)
}
