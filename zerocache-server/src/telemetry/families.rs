//! The families of several series, which [`metrics`](super::metrics()) names.

/// Families of several series in `/metrics`, and their meaning, in one sentence.
pub(super) const FAMILIES: &[(&str, &str)] = &[
    (
        "reads",
        "Reads by their outcome; a stale value is returned over HTTP alone, as the caller allows.",
    ),
    ("writes", "Writes of clients, by what became of them."),
    ("records_applied", "Writes applied to the store, including replicated ones."),
    ("records_rejected", "Records not applied: older than what is known, or too large to keep."),
    ("repair_rounds", "Repair rounds that ended."),
    ("values_moved", "Values moved to and from the owners of their keys."),
    ("tls_handshakes", "TLS handshakes of callers."),
    ("auth_failures", "Requests refused because of who sent them, and how."),
    (
        "requests_rejected",
        "Requests refused because of what they are, or for want of memory or time.",
    ),
    ("memory_share_bytes", "Memory that bodies and messages in transit take of their shares."),
    ("memory_share_limit_bytes", "The shares of memory for bodies and messages in transit."),
    ("closed", "Connections and bodies ended because the other side was too slow."),
    (
        "heartbeats",
        "Heartbeat datagrams sent and answered, and echoes of own ones that arrived in time.",
    ),
    ("datagrams_dropped", "Datagrams that were not used, or not sent."),
    (
        "lease_events",
        "Leases granted and ended, and how callers that waited for one were answered.",
    ),
    (
        "claims_refused",
        "What callers stated about nodes and versions, and this node does not accept.",
    ),
];
