//! The table of metrics: each name, kind, unit and meaning stands here once. `/v1/stats` and `/metrics`
//! export the table, and a test compares it with `docs/operation.md`.

use super::{
    metric_builder::{counter, gauge},
    metrics::{Metric, Value},
};

/// An unsigned reading.
macro_rules! read {
    ($($path:ident).+) => {
        |sample| Value::Unsigned(sample.$($path).+)
    };
}

/// A counter of the listener.
macro_rules! server {
    ($name:ident) => {
        |sample| Value::Unsigned(sample.server.$name.get())
    };
}

fn limit(most: u64) -> Value {
    if most == u64::MAX { Value::Unlimited } else { Value::Unsigned(most) }
}

/// All metrics but those of the disk tier, in the order of `/v1/stats`.
pub(super) const METRICS: &[Metric] = &[
    gauge(
        "entries",
        "Entries held, including those expired within the last 250 ms.",
        read!(store.entries),
    ),
    gauge("bytes", "Bytes charged for entries and tombstones.", read!(store.bytes))
        .bytes()
        .in_family("store_bytes"),
    gauge("entries_max", "Configured limit of entries; null if none.", |s| {
        limit(s.capacity.entries_max)
    })
    .in_family("store_limit_entries"),
    gauge("bytes_max", "Configured byte budget.", read!(capacity.bytes_max))
        .bytes()
        .in_family("store_limit_bytes"),
    gauge("tombstones", "Tombstones held.", read!(store.tombstones)),
    gauge(
        "tombstone_retention_ms",
        "Current retention of tombstones, the shortest of all shards.",
        read!(node.tombstone_retention_ms),
    )
    .milliseconds()
    .in_family("retention_seconds"),
    counter("hits", "Reads that returned a value; over HTTP, a fresh one.", read!(reads.hits))
        .series("reads", "outcome", "hit"),
    counter("stale_hits", "Reads over HTTP that returned a stale value.", read!(reads.stale_hits))
        .series("reads", "outcome", "stale"),
    counter("misses", "Reads that returned nothing.", read!(reads.misses))
        .series("reads", "outcome", "miss"),
    counter(
        "stale_misses",
        "Misses over HTTP for which only a stale value existed.",
        read!(reads.stale_misses),
    ),
    counter(
        "expired",
        "Entries removed because their lifetime ended.",
        read!(store.counts.expired),
    ),
    counter("evicted", "Entries removed to make room.", read!(store.counts.evicted)),
    counter(
        "purged",
        "Entries that a purge ended, and values that came after one.",
        read!(store.counts.purged),
    ),
    gauge(
        "purges",
        "Tags, functions and namespaces of which purges are known.",
        read!(store.purges),
    ),
    counter("puts", "Values stored, including replicated ones.", read!(store.counts.puts)).series(
        "records_applied",
        "operation",
        "put",
    ),
    counter("deletes", "Deletes applied, including replicated ones.", read!(store.counts.deletes))
        .series("records_applied", "operation", "delete"),
    counter("writes_stored", "Writes of clients that were stored.", read!(writes.stored))
        .series("writes", "outcome", "stored"),
    counter(
        "writes_superseded",
        "Writes of clients that lost to a newer one meanwhile.",
        read!(writes.superseded),
    )
    .series("writes", "outcome", "superseded"),
    counter("writes_refused", "Writes of clients that were refused.", read!(writes.refused))
        .series("writes", "outcome", "refused"),
    counter("writes_not_met", "Writes whose condition did not hold.", read!(writes.not_met))
        .series("writes", "outcome", "not_met"),
    counter("writes_unconfirmed", "Writes whose owner did not answer.", read!(writes.unconfirmed))
        .series("writes", "outcome", "unconfirmed"),
    counter(
        "rejected_old",
        "Records that lost to a newer version or were older than the retention.",
        read!(store.counts.rejected_old),
    )
    .series("records_rejected", "reason", "old"),
    counter(
        "rejected_too_large",
        "Replicated values larger than this node can keep.",
        read!(store.counts.rejected_too_large),
    )
    .series("records_rejected", "reason", "too_large"),
    counter(
        "forwarded",
        "Requests passed on to nodes that own their keys.",
        read!(node.placement.forwarded),
    ),
    gauge("placement_complete", "1 if owners were offered all that they own, else 0.", |s| {
        Value::Unsigned(s.node.placement.is_complete.into())
    }),
    gauge("guests", "Values that wait for the owners of their keys.", read!(node.placement.guests)),
    gauge("hot_guests", "Guests that are read much.", read!(node.placement.hot_guests)),
    counter(
        "adopted",
        "Values fetched because this node owns their keys.",
        read!(node.placement.handover.adopted),
    )
    .series("values_moved", "direction", "in"),
    counter(
        "displaced",
        "Values dropped because all owners of their keys have them.",
        read!(node.placement.handover.displaced),
    )
    .series("values_moved", "direction", "out"),
    gauge("clock_offset_ms", "Correction that the node adds to its wall clock.", |s| {
        Value::Signed(s.node.clock_offset_ms)
    })
    .milliseconds(),
    counter("repair_rounds", "Repair rounds completed.", read!(node.repair.rounds_completed))
        .series("repair_rounds", "outcome", "completed"),
    counter(
        "repair_rounds_aborted",
        "Repair rounds that ended early.",
        read!(node.repair.rounds_aborted),
    )
    .series("repair_rounds", "outcome", "aborted"),
    counter(
        "repair_values_fetched",
        "Values fetched by repair.",
        read!(node.repair.values_fetched),
    ),
    counter(
        "repair_bytes_fetched",
        "Bytes of values fetched by repair.",
        read!(node.repair.bytes_fetched),
    )
    .bytes(),
    counter(
        "repair_tombstones_fetched",
        "Tombstones fetched by repair.",
        read!(node.repair.tombstones_fetched),
    ),
    counter(
        "entries_copied",
        "Entries copied from peers while warming.",
        read!(node.repair.entries_copied),
    ),
    counter(
        "full_resyncs",
        "Times the node had missed too much and compared everything with a peer.",
        read!(node.repair.full_resyncs),
    ),
    counter(
        "full_resync_entries_dropped",
        "Entries dropped by full resyncs because the peer does not have them.",
        read!(node.repair.entries_dropped),
    ),
    counter(
        "connections_accepted",
        "Connections accepted, including refused ones.",
        server!(connections_accepted),
    )
    .in_family("connections"),
    gauge(
        "connections_open",
        "Connections that are open, over HTTP and in frames.",
        server!(connections_open),
    ),
    counter(
        "connections_refused",
        "Connections refused because too many were open.",
        server!(connections_refused),
    ),
    counter("requests", "Requests over HTTP and in frames.", server!(requests)),
    counter(
        "bad_requests",
        "HTTP requests refused as malformed or ambiguous.",
        server!(bad_requests),
    )
    .series("requests_rejected", "reason", "bad_request"),
    counter("handshakes", "TLS handshakes completed.", server!(handshakes)).series(
        "tls_handshakes",
        "outcome",
        "completed",
    ),
    counter("handshakes_failed", "TLS handshakes that failed.", server!(handshakes_failed)).series(
        "tls_handshakes",
        "outcome",
        "failed",
    ),
    counter(
        "handshake_timeouts",
        "Connections closed because their TLS handshake was not complete in time.",
        server!(handshake_timeouts),
    )
    .series("tls_handshakes", "outcome", "timeout"),
    counter(
        "handshakes_refused",
        "Connections closed because too many TLS handshakes computed at the same time.",
        server!(handshakes_refused),
    )
    .series("tls_handshakes", "outcome", "refused"),
    counter(
        "plain_refused",
        "Requests refused because they came unencrypted.",
        server!(plain_refused),
    )
    .series("auth_failures", "reason", "tls_required"),
    gauge(
        "tls_mode",
        "Encryption of connections: 0 is off, 1 is optional, 2 is required.",
        read!(tls_mode),
    ),
    counter(
        "failed_reloads",
        "Times that changed credentials or a changed access file could not be used.",
        read!(failed_reloads),
    ),
    counter(
        "denied_unauthenticated",
        "Requests refused because they came without credentials.",
        read!(denials.unauthenticated),
    )
    .series("auth_failures", "reason", "unauthenticated"),
    counter(
        "denied_bad_credentials",
        "Requests refused because their credentials are not of this cluster, or revoked.",
        read!(denials.bad_credentials),
    )
    .series("auth_failures", "reason", "bad_credentials"),
    counter(
        "denied_expired_credentials",
        "Requests refused because their credentials had expired.",
        read!(denials.expired_credentials),
    )
    .series("auth_failures", "reason", "expired_credentials"),
    counter(
        "denied_forbidden",
        "Requests refused because their credentials do not allow them.",
        read!(denials.forbidden),
    )
    .series("auth_failures", "reason", "forbidden"),
    counter(
        "denied_protected",
        "Requests refused because they came from another host than the protected node's.",
        read!(denials.protected),
    )
    .series("auth_failures", "reason", "protected"),
    counter(
        "browsers_refused",
        "Requests of web pages refused because of the host name.",
        server!(browsers_refused),
    )
    .series("auth_failures", "reason", "bad_host"),
    counter(
        "bad_messages",
        "Messages that could not be decoded, and connections closed for an invalid frame.",
        server!(bad_messages),
    )
    .series("requests_rejected", "reason", "bad_message"),
    counter("bodies_too_large", "Bodies refused because of their size.", server!(bodies_too_large))
        .series("requests_rejected", "reason", "body_too_large"),
    counter(
        "bodies_incomplete",
        "Bodies that ended early or were malformed.",
        server!(bodies_incomplete),
    )
    .series("requests_rejected", "reason", "body_incomplete"),
    counter(
        "bodies_over_memory",
        "Bodies refused because too many were in flight.",
        server!(bodies_over_memory),
    )
    .series("requests_rejected", "reason", "over_memory"),
    counter(
        "values_unreadable",
        "Values not served over HTTP: damaged, or too large when decompressed.",
        server!(values_unreadable),
    ),
    counter(
        "header_timeouts",
        "Connections closed because a head arrived too late.",
        server!(header_timeouts),
    )
    .series("closed", "reason", "header"),
    counter(
        "idle_timeouts",
        "Connections closed because nothing arrived for too long.",
        server!(idle_timeouts),
    )
    .series("closed", "reason", "idle"),
    counter(
        "body_timeouts",
        "Bodies and framed messages that arrived too slowly.",
        server!(body_timeouts),
    )
    .series("closed", "reason", "body"),
    counter(
        "write_timeouts",
        "Connections closed because the client did not read.",
        server!(write_timeouts),
    )
    .series("closed", "reason", "write"),
    counter(
        "accept_errors",
        "Failed accepts: no file descriptors or no memory.",
        server!(accept_errors),
    ),
    counter(
        "requests_refused_after_suspend",
        "Requests refused because they may have been queued while the process was suspended.",
        server!(refused_after_suspend),
    )
    .series("requests_rejected", "reason", "suspended"),
    counter(
        "suspensions",
        "Times that the process was suspended for more than 2 s.",
        read!(suspensions),
    ),
    counter("panics", "Request handlers that panicked.", server!(panics)),
    counter("heartbeats_sent", "Heartbeat datagrams sent.", read!(datagrams.heartbeats_sent))
        .series("heartbeats", "event", "sent"),
    counter(
        "heartbeats_answered",
        "Heartbeats of other nodes answered with an echo.",
        read!(datagrams.heartbeats_answered),
    )
    .series("heartbeats", "event", "answered"),
    counter(
        "heartbeats_acknowledged",
        "Echoes of own heartbeats that arrived in time.",
        read!(datagrams.heartbeats_acknowledged),
    )
    .series("heartbeats", "event", "acknowledged"),
    counter(
        "datagrams_malformed",
        "Datagrams dropped because their format is unknown.",
        read!(datagrams.malformed),
    )
    .series("datagrams_dropped", "reason", "malformed"),
    counter(
        "datagrams_misdirected",
        "Datagrams dropped because they are for another node or from an unknown one.",
        read!(datagrams.misdirected),
    )
    .series("datagrams_dropped", "reason", "misdirected"),
    counter(
        "datagrams_unauthenticated",
        "Datagrams dropped because their authentication failed.",
        read!(datagrams.unauthenticated),
    )
    .series("datagrams_dropped", "reason", "unauthenticated"),
    counter(
        "datagrams_replayed",
        "Datagrams dropped because they arrived twice or too late, or with an impossible number.",
        read!(datagrams.replayed),
    )
    .series("datagrams_dropped", "reason", "replayed"),
    counter(
        "datagram_send_errors",
        "Datagrams that the kernel did not accept.",
        read!(datagram_send_errors),
    )
    .series("datagrams_dropped", "reason", "send_error"),
    gauge(
        "response_bytes_pending",
        "Bytes of responses on framed connections that callers have not read.",
        read!(response_bytes_pending),
    )
    .bytes()
    .in_family("pending_response_bytes"),
    gauge("body_bytes", "Bytes of values in transit over HTTP.", read!(bodies.used))
        .bytes()
        .series("memory_share_bytes", "share", "bodies"),
    gauge("body_bytes_max", "Most bytes of values in transit over HTTP.", read!(bodies.max))
        .bytes()
        .series("memory_share_limit_bytes", "share", "bodies"),
    gauge("message_bytes", "Bytes of large messages in transit.", read!(messages.used))
        .bytes()
        .series("memory_share_bytes", "share", "messages"),
    gauge("message_bytes_max", "Most bytes of large messages in transit.", read!(messages.max))
        .bytes()
        .series("memory_share_limit_bytes", "share", "messages"),
    gauge("replication_queue_records", "Records that wait to be sent to other nodes.", |s| {
        Value::Unsigned(s.queued.0)
    }),
    gauge(
        "replication_queue_bytes",
        "Bytes of the records that wait to be sent to other nodes.",
        |s| Value::Unsigned(s.queued.1),
    )
    .bytes(),
    gauge("watchers", "Clients that wait for membership changes.", read!(watchers)),
    gauge("leases_held", "Keys with a lease.", read!(node.leases.held)),
    gauge(
        "lease_waiters",
        "Callers that wait for a lease or its value.",
        read!(node.leases.waiting),
    ),
    counter("leases_granted", "Leases granted at once.", read!(node.leases.granted)).series(
        "lease_events",
        "event",
        "granted",
    ),
    counter(
        "leases_handed_over",
        "Leases granted to a waiting caller after one ended without a value.",
        read!(node.leases.handed_over),
    )
    .series("lease_events", "event", "handed_over"),
    counter(
        "leases_invalidated",
        "Leases ended by a delete or a newer write.",
        read!(node.leases.invalidated),
    )
    .series("lease_events", "event", "invalidated"),
    counter("leases_expired", "Leases that nobody returned in time.", read!(node.leases.expired))
        .series("lease_events", "event", "expired"),
    counter(
        "leases_disconnected",
        "Leases ended by the end of their holder's connection.",
        read!(node.leases.disconnected),
    )
    .series("lease_events", "event", "disconnected"),
    counter("lease_hits", "Lease requests answered with a fresh value.", read!(node.leases.served))
        .series("lease_events", "event", "hit"),
    counter(
        "lease_timeouts",
        "Lease requests that got neither a lease nor a value in time.",
        read!(node.leases.busy),
    )
    .series("lease_events", "event", "timeout"),
    gauge(
        "feed_followers",
        "Clients that follow the change feed for their near caches.",
        read!(node.feed.followers),
    ),
    counter(
        "feed_changes",
        "Changes recorded while somebody followed the feed.",
        read!(node.feed.changes),
    ),
    counter(
        "feed_gaps",
        "Feed responses that report lost changes, one for each client that begins.",
        read!(node.feed.gaps),
    ),
    counter(
        "addresses_refused",
        "Announced addresses not accepted: too many, or impossible to dial.",
        read!(node.refused.addresses),
    )
    .series("claims_refused", "claim", "address"),
    counter(
        "gossip_refused",
        "Gossip not accepted because it came from a wrong address.",
        read!(node.refused.gossip),
    )
    .series("claims_refused", "claim", "gossip"),
    counter(
        "identities_refused",
        "Requests refused because they were in the name of a node that the caller is not.",
        read!(node.refused.identities),
    )
    .series("claims_refused", "claim", "identity"),
    counter(
        "future_versions_refused",
        "Claimed versions more than 5 s ahead of this node's clock.",
        read!(node.refused.future_versions),
    )
    .series("claims_refused", "claim", "version"),
    counter(
        "requests_over_quota",
        "Requests beyond the quota of one connection, or copies beyond their limit.",
        read!(node.refused.over_quota),
    )
    .series("requests_rejected", "reason", "over_quota"),
];
