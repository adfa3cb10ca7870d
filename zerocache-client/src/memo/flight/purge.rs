//! Purges of what is being computed and stored.

use zerocache_core::purge::{PurgeTarget, TargetId};

use super::{FlightKey, SharedWrite, TABLE, close_after_delete, invalidate};

/// As [`invalidate`] for all keys of the group's cluster that may have values of a purged target. The tags of a value are known when it
/// has been computed, so that a tag stands for all keys.
pub(crate) fn invalidate_all(group: u64, target: &PurgeTarget) -> Vec<SharedWrite> {
    let keys = keys_of(group, target);
    keys.iter().flat_map(|(group, key)| invalidate(*group, key)).collect()
}

/// As [`close_after_delete`] for all these keys.
pub(crate) fn close_all_after_purge(group: u64, target: &PurgeTarget) {
    keys_of(group, target).iter().for_each(|(group, key)| close_after_delete(*group, key));
}

/// The keys in the table, of clients of the group's cluster, that may have values of a target.
fn keys_of(of: u64, target: &PurgeTarget) -> Vec<FlightKey> {
    let is_scope = matches!(target, PurgeTarget::Namespace(_) | PurgeTarget::Function { .. });
    let id = target.id();
    let may_be_of =
        |key: &[u8]| !is_scope || TargetId::of_key(key).into_iter().flatten().any(|of| of == id);
    let table = TABLE.get_or_init(|_| Default::default());
    let shards = table.iter().flat_map(|shard| {
        let shard = shard.lock();
        let concerns = |(group, key): &&FlightKey| group >> 32 == of >> 32 && may_be_of(key);
        shard.keys().filter(concerns).cloned().collect::<Vec<_>>()
    });
    shards.collect()
}
