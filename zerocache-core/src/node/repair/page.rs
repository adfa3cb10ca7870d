//! A page of values that are offered to the owners of their keys.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    cluster::{Member, View},
    key::KeyHash,
    node::{CallId, local::Context},
    store::{Backend, HeldValue, KeyVersion},
    time::Instant,
    version::{Incarnation, Version},
    wire::features,
};

/// The values that are being offered.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What each owner has not confirmed yet.
    pub(super) unconfirmed: BTreeMap<Incarnation, BTreeMap<KeyHash, Version>>,
    /// The values that are dropped when all owners have them.
    pub(super) guests: Vec<KeyVersion>,
    pub(super) calls: BTreeMap<CallId, Incarnation>,
    /// Offers in a row that brought nothing.
    pub(super) attempts: u32,
    pub(super) waits_until: Option<Instant>,
    pub(super) is_of_walk: bool,
}

impl Page {
    pub(super) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty() && self.guests.is_empty()
    }

    /// Adds a value. Returns whether all its owners can be asked, and those that cannot in `skipped`.
    pub(super) fn add<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        view: &View,
        value: HeldValue,
        skipped: &mut BTreeSet<Incarnation>,
    ) -> bool {
        let (own, placement) = (cx.local.id(), view.placement());
        let mut is_complete = true;
        let mut offer = |owner: Incarnation| {
            let is_there = view.takes_writes(owner);
            is_complete &= is_there;
            match is_there {
                true => {
                    let unconfirmed = self.unconfirmed.entry(owner).or_default();
                    unconfirmed.insert(value.key, value.version);
                }
                false => drop(skipped.insert(owner)),
            }
        };
        if placement.is_everyone() {
            // An earlier release gets what is written; it takes no offers.
            let takes_offers = |member: &&Member| member.features & features::PLACEMENT != 0;
            let peers = view.writable_in(cx.local.region()).filter(takes_offers);
            peers.for_each(|member| offer(member.info.incarnation));
            return is_complete;
        }
        let owners = placement.owners(value.key);
        owners.iter().filter(|owner| **owner != own).for_each(|owner| offer(*owner));
        if is_complete && !owners.is_empty() && !owners.contains(&own) {
            self.guests.push((value.key, value.version));
        }
        is_complete
    }

    /// Notes what an owner has.
    pub(super) fn confirmed(&mut self, owner: Incarnation, versions: &[KeyVersion]) {
        let Some(unconfirmed) = self.unconfirmed.get_mut(&owner) else { return };
        let before = unconfirmed.len();
        for (key, known) in versions {
            if unconfirmed.get(key).is_some_and(|offered| known >= offered) {
                unconfirmed.remove(key);
            }
        }
        if unconfirmed.len() < before {
            self.attempts = 0;
        }
        if unconfirmed.is_empty() {
            self.unconfirmed.remove(&owner);
        }
    }

    /// Takes those out who have gone since the page was begun: nobody waits for them. Returns them, and the guests that
    /// are for them.
    pub(super) fn take_gone(&mut self, view: &View) -> (Vec<Incarnation>, Vec<KeyHash>) {
        let (there, gone) = core::mem::take(&mut self.unconfirmed)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(owner, _)| view.takes_writes(*owner));
        self.unconfirmed = there;
        let is_for_gone = |key: &KeyHash| gone.values().any(|of| of.contains_key(key));
        let guests = self.guests.extract_if(.., |(key, _)| is_for_gone(key));
        let guests = guests.map(|(key, _)| key).collect();
        (gone.into_keys().collect(), guests)
    }
}
