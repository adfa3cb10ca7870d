//! What happened in the cluster, as log lines and for discovery.

use std::net::SocketAddr;

use zerocache_core::node::Event;

/// The addresses at which a node answers from now on, or no longer does, and which of both.
pub(super) fn reach(event: &Event) -> impl Iterator<Item = (SocketAddr, bool)> {
    let (info, address, answered) = match event {
        Event::MemberUp(info, address) => (Some(info), Some(*address), true),
        Event::MemberDown(info, address) => (Some(info), Some(*address), false),
        _ => (None, None, false),
    };
    let announced = info.into_iter().flat_map(|info| info.addresses.iter().copied());
    announced.chain(address).map(move |address| (address, answered))
}

/// Logs an event.
pub(super) fn log(event: &Event) {
    match event {
        Event::MemberUp(info, address) => tracing::info!(
            node = %info.incarnation, region = info.region, %address, "a node answers"
        ),
        Event::MemberDown(info, address) => tracing::warn!(
            node = %info.incarnation, region = info.region, %address, "a node is silent"
        ),
        Event::MemberLeaving(info) => tracing::info!(
            node = %info.incarnation, region = info.region, "a node leaves"
        ),
        Event::MemberForgotten(info) => tracing::info!(
            node = %info.incarnation, region = info.region, "a node is gone"
        ),
        Event::OtherCluster { address, text } => tracing::warn!(
            %address, "refused: another cluster answers there: {text}"
        ),
        Event::AddressConflict { address, node } => tracing::warn!(
            %address, %node, "two nodes that are both alive claim this address"
        ),
        Event::WritesDropped { peer, count } => tracing::warn!(
            node = %peer, count, "writes for a node were given up"
        ),
        Event::WritesRefused { peer, count } => tracing::warn!(
            node = %peer, count, "a node refused writes: compare the clocks of both"
        ),
        Event::ClockMoved { by_ms, redated } => {
            tracing::warn!(by_ms, redated, "this node's clock was off and is put right")
        }
        Event::ClockApart { peer, ahead_ms } => tracing::error!(
            node = %peer, ahead_ms,
            "the clocks of two nodes differ by more than a day: neither believes the other; set the one that \
             is wrong and start that node again"
        ),
        Event::FullResync { peer, entries_dropped } => tracing::warn!(
            node = %peer, entries_dropped, "this node had missed too much and asked a peer about all it had"
        ),
        Event::CopyComplete { source, entries } => tracing::info!(
            node = %source, entries, "copied the entries of a peer"
        ),
        other => tracing::info!(?other, "cluster event"),
    }
}
