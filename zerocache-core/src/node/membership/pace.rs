//! How often members get heartbeats and pings, and how long one may be silent: as often as a few members
//! allow, and more seldom the more there are, so that the traffic of an idle node has a bound.
//!
//! Members of the own region are paced apart from those of others, of which a node talks to a few only.

use crate::cluster::View;

/// How often heartbeats are sent, to some members each time, in milliseconds.
pub(super) const HEARTBEAT_EVERY_MS: u64 = 100;

/// The most members of the own region, and of the other ones together, that get a heartbeat each time. If there
/// are more, they take turns.
const AT_A_TIME: u64 = 16;

/// After this much silence a member is out of this node's rotation, in milliseconds; longer if fewer than
/// [`HEARTBEATS_MIN`] heartbeats go to it in this time.
///
/// Contract section 4: within 3 s of the fault; pauses up to 1 s have no effect.
const SILENCE_MS_MIN: u64 = 2_500;

/// A member is out only if this many heartbeats in a row, or their echoes, were lost.
const HEARTBEATS_MIN: u64 = 8;

/// How often a local peer whose heartbeats pass is pinged, in milliseconds; more seldom where there are many.
const PING_LOCAL_MS: u64 = 500;

/// How often a node of another region is pinged, in milliseconds.
const PING_REMOTE_MS: u64 = 1_000;

/// The pace at which the members of one kind are monitored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    members: u64,
    is_local: bool,
}

/// The paces of the own region and of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paces {
    local: Pace,
    remote: Pace,
}

impl Paces {
    /// Returns the paces for the members of a node in `region`.
    pub(super) fn of(view: &View, region: &str) -> Self {
        let (mut local, mut remote) = (0, 0);
        for member in view.members() {
            *if member.info.region == region { &mut local } else { &mut remote } += 1;
        }
        Self {
            local: Pace { members: local, is_local: true },
            remote: Pace { members: remote, is_local: false },
        }
    }

    /// Returns the pace for members of the own region, or of another one.
    pub(super) fn for_member(&self, is_local: bool) -> Pace {
        if is_local { self.local } else { self.remote }
    }
}

impl Pace {
    /// Returns whether the member at position `index` among those of its kind gets a heartbeat at the `tick`th
    /// time.
    pub(super) fn has_turn(&self, index: u64, tick: u64) -> bool {
        let members = self.members.max(1);
        let first = tick.wrapping_mul(AT_A_TIME) % members;
        (index % members + members - first) % members < AT_A_TIME
    }

    /// Returns the time after which a silent member is out, in milliseconds.
    pub(super) fn silence_ms(&self) -> u64 {
        SILENCE_MS_MIN.max(self.slowed(HEARTBEAT_EVERY_MS * HEARTBEATS_MIN))
    }

    /// Returns the time between two pings to a member whose heartbeats are echoed, in milliseconds.
    pub(super) fn ping_echoing_ms(&self) -> u64 {
        self.slowed(self.ping_ms())
    }

    /// Returns the time between two pings to any other member, in milliseconds. If it is reachable, pings are all
    /// that shows whether it is alive.
    pub(super) fn ping_alone_ms(&self, is_reachable: bool) -> u64 {
        if is_reachable { PING_LOCAL_MS } else { self.ping_ms() }
    }

    fn ping_ms(&self) -> u64 {
        if self.is_local { PING_LOCAL_MS } else { PING_REMOTE_MS }
    }

    /// Stretches a time by as much as there are more members than get a heartbeat at a time.
    fn slowed(&self, ms: u64) -> u64 {
        ms * self.members.max(AT_A_TIME) / AT_A_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(members: u64) -> Pace {
        Pace { members, is_local: true }
    }

    #[test]
    fn everybody_has_a_turn_as_often_as_the_others() {
        for members in [1, 2, 15, 16, 17, 31, 32, 33, 99, 1_000] {
            let pace = pace(members);
            let rounds = 100 * members;
            let mut turns = alloc::vec![0_u64; members as usize];
            for tick in 0..rounds {
                let mut now = 0;
                for index in (0..members).filter(|index| pace.has_turn(*index, tick)) {
                    turns[index as usize] += 1;
                    now += 1;
                }
                assert_eq!(now, members.min(AT_A_TIME), "{members} members, tick {tick}");
            }
            let each = rounds * members.min(AT_A_TIME) / members;
            assert!(turns.iter().all(|count| count.abs_diff(each) <= 1), "{members}: {turns:?}");
        }
    }

    #[test]
    fn few_members_are_monitored_as_often_as_can_be() {
        for members in 0..=16 {
            assert_eq!((pace(members).silence_ms(), pace(members).ping_echoing_ms()), (2_500, 500));
        }
        assert_eq!((pace(50).silence_ms(), pace(50).ping_echoing_ms()), (2_500, 1_562));
        assert_eq!((pace(99).silence_ms(), pace(99).ping_echoing_ms()), (4_950, 3_093));
    }
}
