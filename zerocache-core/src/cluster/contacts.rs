//! The contacts of a node: all nodes of its own region, and a few of each other one.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{version::Incarnation, wire::NodeInfo};

/// How many usable contacts a node has in each other region.
pub const CONTACTS_PER_REGION: usize = 4;

/// How many silent contacts a node keeps in each other region.
pub const SILENT_PER_REGION: usize = 4;

/// The state of a possible contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactState {
    /// It can be a contact, as far as is known.
    Usable,
    /// It does not respond.
    Silent,
    /// It stays one in any case, because of its release: it says nothing of others, and does not compare what it has.
    Early,
}

/// Chooses the contacts of a node: the nodes of its region, and of each other region those that rank highest
/// by rendezvous hashing, so that nodes do not all choose the same, and one that goes is replaced by one
/// other. Silent ones do not count, nor do those of early releases.
pub fn choose_contacts<'a>(
    own: &NodeInfo,
    others: impl IntoIterator<Item = &'a NodeInfo>,
    state: impl Fn(Incarnation) -> ContactState,
) -> Vec<Incarnation> {
    let mut chosen = Vec::new();
    let mut remote: BTreeMap<&str, Vec<(u64, Incarnation)>> = BTreeMap::new();
    for info in others {
        let id = info.incarnation;
        if info.region == own.region {
            chosen.push(id);
        } else {
            remote.entry(&info.region).or_default().push((rank(own.incarnation, id), id));
        }
    }
    for mut region in remote.into_values() {
        region.sort_unstable_by(|a, b| b.cmp(a));
        let (mut usable, mut silent) = (0, 0);
        for (_, id) in region {
            let (count, most) = match state(id) {
                ContactState::Usable => (&mut usable, CONTACTS_PER_REGION),
                ContactState::Silent => (&mut silent, SILENT_PER_REGION),
                ContactState::Early => {
                    chosen.push(id);
                    continue;
                }
            };
            *count += 1;
            if *count <= most {
                chosen.push(id);
            }
        }
    }
    chosen
}

fn rank(own: Incarnation, other: Incarnation) -> u64 {
    let mut pair = [0; 16];
    pair[..8].copy_from_slice(&own.0.to_le_bytes());
    pair[8..].copy_from_slice(&other.0.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&pair)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, format};

    use super::*;
    use crate::wire::NodeState;

    fn info(n: u64, region: u64) -> NodeInfo {
        NodeInfo {
            incarnation: Incarnation(n),
            region: format!("r{region}"),
            zone: None,
            addresses: Vec::new(),
            state: NodeState::InSync,
            bytes_max: 0,
            name: None,
            replicas: crate::cluster::Replicas::All,
        }
    }

    #[test]
    fn contacts_are_the_own_region_and_a_few_of_each_other() {
        let all: Vec<_> = (0..40).map(|n| info(n, n / 10)).chain([info(40, 9)]).collect();
        let chosen = choose_contacts(&all[0], &all[1..], |_| ContactState::Usable);
        let of = |r: u64| chosen.iter().filter(|id| id.0 / 10 == r).count();
        assert_eq!((of(0), of(1), of(2), of(3), of(4)), (9, 4, 4, 4, 1));
    }

    #[test]
    fn silent_contact_is_replaced_and_still_asked() {
        let all: Vec<_> = (0..20).map(|n| info(n, n / 10)).collect();
        let before = choose_contacts(&all[0], &all[10..], |_| ContactState::Usable);
        let lost = before[1];
        let silent = |id| if id == lost { ContactState::Silent } else { ContactState::Usable };
        let after = choose_contacts(&all[0], &all[10..], silent);
        assert_eq!((before.len(), after.len()), (4, 5));
        assert!(before.iter().all(|id| after.contains(id)));
        let none = choose_contacts(&all[0], &all[10..], |_| ContactState::Silent);
        assert_eq!(none.len(), SILENT_PER_REGION);
    }

    #[test]
    fn nodes_of_early_releases_take_no_places_of_others() {
        let all: Vec<_> = (0..20).map(|n| info(n, n / 10)).collect();
        let is_early = |id: Incarnation| (10..18).contains(&id.0);
        let early = |id| if is_early(id) { ContactState::Early } else { ContactState::Usable };
        let chosen: BTreeSet<_> = choose_contacts(&all[0], &all[10..], early).into_iter().collect();
        assert_eq!(chosen, (10..20).map(Incarnation).collect());
    }

    #[test]
    fn nodes_choose_different_contacts() {
        let all: Vec<_> = (0..60).map(|n| info(n, n / 30)).collect();
        let chosen = all[..30]
            .iter()
            .flat_map(|own| choose_contacts(own, &all[30..], |_| ContactState::Usable));
        let chosen: BTreeSet<_> = chosen.collect();
        assert!(chosen.len() > 25, "only {} of 30 are anybody's contact", chosen.len());
    }
}
