//! The registry of near caches: one per process and cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use zerocache_net::process::PerProcess;

use super::Near;

type Registry = HashMap<u64, (Weak<Near>, u64)>;

static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new();

/// Returns the near cache of a cluster, which lives as long as one of its clients. Its size is the largest that
/// one of them sets.
pub(crate) fn shared(cluster: u64, bytes_max: u64) -> Arc<Near> {
    let mut registry = REGISTRY.get_or_init(|_| Mutex::default()).lock();
    registry.retain(|_, (near, _)| near.strong_count() > 0);
    if let Some((near, largest)) = registry.get_mut(&cluster)
        && let Some(near) = near.upgrade()
    {
        if bytes_max > *largest {
            *largest = bytes_max;
            near.set_bytes_max(bytes_max);
        }
        return near;
    }
    let near = Arc::new(Near::new(bytes_max));
    registry.insert(cluster, (Arc::downgrade(&near), bytes_max));
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_cluster_share_a_near_cache_while_they_live() {
        let one = shared(1, 1 << 20);
        assert!(Arc::ptr_eq(&one, &shared(1, 1 << 10)));
        assert!(!Arc::ptr_eq(&one, &shared(2, 1 << 20)));
        assert_eq!(one.bytes_max(), 1 << 20);
        drop(shared(1, 1 << 21));
        assert_eq!(one.bytes_max(), 1 << 21);
        let gone = Arc::downgrade(&one);
        drop(one);
        assert!(gone.upgrade().is_none());
    }
}
