//! Changes that a variant makes to the messages of nodes.

use std::collections::{BTreeMap, BTreeSet};

use zerocache_core::{
    call::CallFailure,
    node::Input,
    store::KeyVersion,
    version::{Incarnation, Version},
    wire::{FetchedItem, Hello, Receipt, Request, Response},
};

use super::{CallToken, World};
use crate::{clock::SECOND_US, variants::Variant};

/// A copy with holes lacks the keys of the parts below this one.
const HOLE_SHARDS: usize = 16;

/// The calls of a node whose answers a variant changes.
#[derive(Debug, Default)]
pub(super) struct TamperedCalls {
    /// Those with records, and how many these were.
    batches: BTreeMap<CallToken, usize>,
    /// Those for parts of a copy.
    copies: BTreeSet<CallToken>,
    /// Those with offers to owners, and what was offered.
    offers: BTreeMap<CallToken, Vec<KeyVersion>>,
    /// Those for values that the node owns.
    adoptions: BTreeSet<CallToken>,
}

impl World {
    /// A node makes a call.
    pub(super) fn record_call(&mut self, host: u32, token: CallToken, request: &Request) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        match request {
            Request::Replicate(batch) if self.variant.counts_refusals() => {
                process.tampered.batches.insert(token, batch.len());
            }
            Request::Copy { .. } if self.variant.leaves_holes() => {
                process.tampered.copies.insert(token);
            }
            Request::Offer(offered) if self.variant == Variant::OffersConfirmed => {
                process.tampered.offers.insert(token, offered.clone());
            }
            Request::Adopt(_) if self.variant.loses_adopted() => {
                process.tampered.adoptions.insert(token);
            }
            _ => {}
        }
    }

    /// Lets a node believe that it did something now and then since this time.
    pub(super) fn pretend_to_tick(&mut self, host: u32, since_us: u64) {
        for at_us in (since_us..self.now_us).step_by(SECOND_US as usize) {
            let now = self.hosts[host as usize].clock.now(at_us);
            let Some(process) = self.nodes[host as usize].as_mut() else { return };
            let mut effects = Vec::new();
            process.node.handle(now, Input::Tick, &mut effects);
            for effect in effects {
                self.perform(host, effect);
            }
        }
    }

    /// Changes a response of a node.
    pub(super) fn tamper_response(&self, host: u32, response: &mut Response) {
        match response {
            Response::Digests(digests) if self.variant == Variant::OffersClaimed => {
                let process = self.nodes[host as usize].as_ref();
                let status = process.map(|process| process.node.status(self.now_at(host)));
                digests.placed = status.map_or(0, |status| status.placement.id);
            }
            Response::Hello(hello) => self.tamper_weight(hello),
            _ => {}
        }
        if let Response::NotFound { warming, .. } = response
            && self.variant.claims_all_misses()
        {
            *warming = false;
        }
    }

    /// Changes what a node says of itself.
    pub(super) fn tamper_weight(&self, hello: &mut Hello) {
        if let Some(node) = hello.node.as_mut().filter(|_| self.variant == Variant::OwnersApart) {
            node.bytes_max *= 2;
        }
    }

    /// Changes a response to a node.
    pub(super) fn tamper_answer(
        &mut self,
        host: u32,
        token: CallToken,
        result: &mut Result<Response, CallFailure>,
    ) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let (batch, copy) =
            (process.tampered.batches.remove(&token), process.tampered.copies.remove(&token));
        let offered = process.tampered.offers.remove(&token);
        let adopts = process.tampered.adoptions.remove(&token);
        // Above whatever was sent, and too far ahead to be taken for a time.
        let all = Receipt::Holds(Version::new(u64::MAX, Incarnation(u64::MAX)));
        match (result, batch) {
            (Ok(Response::Replicated(receipts)), Some(_)) => {
                for receipt in receipts.iter_mut().filter(|it| **it == Receipt::Refused) {
                    *receipt = all;
                }
            }
            (Ok(response @ Response::Refused(_)), Some(count)) => {
                *response = Response::Replicated(vec![all; count]);
            }
            (Ok(Response::Versions { versions, .. }), None) => {
                *versions = offered.unwrap_or_else(|| core::mem::take(versions));
            }
            (Ok(Response::Items { items, .. }), None) if adopts => items.clear(),
            (Ok(Response::Items { items, .. }), None) if copy => {
                items.retain(|item| {
                    let key = match item {
                        FetchedItem::Value { record } => record.key.hash(),
                        FetchedItem::Tombstone(key, _) => *key,
                    };
                    key.shard() >= HOLE_SHARDS
                });
            }
            _ => {}
        }
    }
}
