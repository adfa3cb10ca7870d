//! The clients of this process that use one near cache.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use zerocache_net::process::PerProcess;

use super::local_state::LocalState;
use crate::near::Near;
#[cfg(feature = "metrics")]
use crate::near::NearStats;

static ALL: PerProcess<Mutex<Vec<Weak<Sharing>>>> = PerProcess::new();

fn all() -> &'static Mutex<Vec<Weak<Sharing>>> {
    ALL.get_or_init(|_| Mutex::default())
}

/// One near cache and its clients.
pub(crate) struct Sharing {
    near: Arc<Near>,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a label"))]
    cluster: String,
    users: Mutex<Vec<Weak<LocalState>>>,
    /// The counts that were published last, by whichever client.
    #[cfg(feature = "metrics")]
    published: Mutex<NearStats>,
}

impl Sharing {
    /// Those who share `near`, the near cache of clients of `cluster`.
    pub(super) fn of(near: &Arc<Near>, cluster: &str) -> Arc<Self> {
        let mut all = all().lock();
        all.retain(|sharing| sharing.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade);
        if let Some(sharing) = { known }.find(|sharing| Arc::ptr_eq(&sharing.near, near)) {
            return sharing;
        }
        let sharing = Arc::new(Self {
            near: Arc::clone(near),
            cluster: cluster.to_owned(),
            users: Mutex::default(),
            // It may have been used by clients that have ended and published its counts.
            #[cfg(feature = "metrics")]
            published: Mutex::new(near.stats()),
        });
        all.push(Arc::downgrade(&sharing));
        sharing
    }

    /// A client uses it from here on.
    pub(super) fn join(&self, local: &Arc<LocalState>) {
        self.users.lock().push(Arc::downgrade(local));
    }

    fn users(&self) -> Vec<Arc<LocalState>> {
        let mut users = self.users.lock();
        users.retain(|local| local.strong_count() > 0);
        users.iter().filter_map(Weak::upgrade).collect()
    }

    /// Looks of all clients: another number than before if there was one.
    pub(super) fn uses(&self) -> u64 {
        self.users().iter().map(|local| local.near_uses()).fold(0, u64::wrapping_add)
    }

    /// No client needs changes to be followed before its next look.
    pub(super) fn rest(&self) {
        self.users().iter().filter_map(|local| local.near.as_ref()).for_each(|near| near.rest());
    }

    /// No client may follow changes, with the credentials that they have.
    pub(super) fn forbid(&self) {
        self.users().iter().filter_map(|local| local.near.as_ref()).for_each(|near| near.forbid());
    }

    /// Clients may follow changes again, as far as they know.
    pub(super) fn permit(&self) {
        self.users().iter().filter_map(|local| local.near.as_ref()).for_each(|near| near.permit());
    }

    /// Returns what was counted since the last call.
    #[cfg(feature = "metrics")]
    pub(super) fn take_news(&self) -> NearStats {
        let now = self.near.stats();
        let mut published = self.published.lock();
        let before = std::mem::replace(&mut *published, now);
        NearStats {
            inserts: now.inserts.saturating_sub(before.inserts),
            rejected_old: now.rejected_old.saturating_sub(before.rejected_old),
            invalidated: now.invalidated.saturating_sub(before.invalidated),
            cleared: now.cleared.saturating_sub(before.cleared),
            ..now
        }
    }

    /// Returns the entries and bytes of all near caches of the same cluster's name.
    #[cfg(feature = "metrics")]
    pub(super) fn size(&self) -> (u64, u64) {
        let all: Vec<_> = all().lock().iter().filter_map(Weak::upgrade).collect();
        let same = all.iter().filter(|sharing| sharing.cluster == self.cluster);
        let sizes = same.map(|sharing| sharing.near.stats());
        sizes.fold((0, 0), |sum, stats| (sum.0 + stats.entries, sum.1 + stats.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::config::Config;

    fn local(cluster: &str, region: &str) -> Arc<LocalState> {
        let mut config = Config::new(region);
        config.cluster = cluster.to_owned();
        LocalState::of(&config, 0)
    }

    fn sharing(local: &LocalState) -> &Sharing {
        &local.near.as_ref().expect("is on").sharing
    }

    fn look(local: &LocalState) {
        let near = local.near.as_ref().expect("is on");
        assert!(near.begin().is_none(), "nothing is followed");
    }

    #[test]
    fn a_look_of_any_client_is_one_and_rest_is_for_all() {
        let [one, other] = ["oslo", "rome"].map(|region| local("sharing", region));
        let stranger = local("another", "oslo");
        let before = sharing(&one).uses();
        look(&stranger);
        assert_eq!(sharing(&one).uses(), before);
        look(&other);
        assert_eq!(sharing(&one).uses(), before + 1);
        let is_wanted =
            |local: &LocalState| local.near.as_ref().is_some_and(|near| near.is_wanted());
        assert!(is_wanted(&other) && is_wanted(&stranger));
        sharing(&one).rest();
        assert!(!is_wanted(&other) && is_wanted(&stranger));
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn what_becomes_of_a_cache_is_told_once() {
        let [one, other] = ["oslo", "rome"].map(|region| local("told once", region));
        let near = &one.near.as_ref().expect("is on").near;
        let claim = near.claim().expect("nobody follows");
        let now = zerocache_net::clock::mono();
        claim.rules().apply_changes(now, false, (&[], &[]), now);
        let begun = near.begin_fill(now).expect("is followed");
        let version =
            zerocache_core::version::Version::new(1 << 16, zerocache_core::version::Incarnation(1));
        let fill = crate::near::Fill {
            value: b"v",
            version,
            remaining_ms: 60_000,
            metadata: &zerocache_core::metadata::Metadata::default(),
            node: version.incarnation(),
            tier: zerocache_core::route::Tier::Local,
        };
        near.insert(begun, b"k", &fill, now);
        assert_eq!(sharing(&one).size().0, 1);
        assert_eq!(sharing(&one).take_news().inserts, 1);
        assert_eq!(sharing(&other).take_news().inserts, 0);
        // Who followed a node for them may be behind its clients.
        let left = Arc::clone(near);
        drop((one, other));
        let next = local("told once", "oslo");
        assert!(Arc::ptr_eq(&next.near.as_ref().expect("is on").near, &left));
        assert_eq!(sharing(&next).take_news().inserts, 0);
    }
}
