//! One near cache per process and cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use zerocache_net::process::PerProcess;

use super::Near;

type Known = HashMap<u64, (Weak<Near>, u64)>;

static KNOWN: PerProcess<Mutex<Known>> = PerProcess::new();

/// The near cache of a cluster, which lives as long as one of its clients. It may take as many bytes as
/// the most generous of them allows.
pub(crate) fn shared(cluster: u64, bytes_max: u64) -> Arc<Near> {
    let mut known = KNOWN.get_or_init(|_| Mutex::default()).lock();
    known.retain(|_, (near, _)| near.strong_count() > 0);
    if let Some((near, most)) = known.get_mut(&cluster)
        && let Some(near) = near.upgrade()
    {
        if bytes_max > *most {
            *most = bytes_max;
            near.allow(bytes_max);
        }
        return near;
    }
    let near = Arc::new(Near::new(bytes_max));
    known.insert(cluster, (Arc::downgrade(&near), bytes_max));
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_cluster_share_it_for_as_long_as_they_live() {
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
