//! Checks of acknowledgements, and of reads after a client's own writes.

use zerocache_core::{
    version::{Incarnation, Version},
    wire::{Status, Written},
};

use super::{Checker, Rule};
use crate::{clock::SECOND_US, workload::WriteId};

/// For this long after a write its client is to see it (contract section 5), less what clocks gain,
/// in microseconds.
const OWN_US: u64 = 2 * SECOND_US - 5_000;

/// A value with less than this of its lifetime left may have expired at a node already, in
/// microseconds: late messages shorten it.
const LIFE_US: u64 = 2 * SECOND_US;

/// The answer of a node to a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteAnswer {
    pub(crate) host: u32,
    pub(crate) key: usize,
    /// The write that its value names; 0 for others.
    pub(crate) id: WriteId,
    /// The version that its caller gave.
    pub(crate) token: Option<Version>,
    pub(crate) written: Written,
    /// The node's version of the key before and after the inputs that led to the answer.
    pub(crate) before: Option<Version>,
    pub(crate) after: Option<Version>,
    /// For how many replicas it has to wait, if that is certain, and whether all have to have it.
    pub(crate) wanted: Option<(u32, bool)>,
}

/// A client's write that it is to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcknowledgedWrite {
    /// The node that accepted it.
    pub(crate) node: Incarnation,
    pub(crate) version: Version,
    pub(crate) is_delete: bool,
    /// The time of its acknowledgement.
    pub(crate) at_us: u64,
}

impl Checker {
    /// A node answers a write.
    pub(crate) fn acknowledged(&mut self, answer: &WriteAnswer) {
        let WriteAnswer { host, key, id, token, written, before, after, wanted } = *answer;
        let Written { status, replicas, replicas_wanted, version } = written;
        let (holders, knew) = match version {
            Some(version) => (self.holders(key, version), self.knew(host, key, version)),
            None => (0, false),
        };
        let is_purged = || version.is_none() && self.may_supersede(host, (key, id), token);
        let in_place = (1..=replicas_wanted).contains(&replicas);
        let matches = |(most, all): (u32, bool)| {
            replicas_wanted == most && (!all || replicas == most || status != Status::Stored)
        };
        let fault = match status {
            Status::Refused if replicas == 0 => None,
            Status::Refused | Status::Unknown => Some("which no node says"),
            Status::Stored if !knew => Some("which it never had"),
            Status::Stored if before > version => Some("of which it knew a newer version"),
            Status::Superseded if is_purged() => None,
            Status::Superseded if after <= version => Some("of which it knows no newer version"),
            _ if !in_place || holders < replicas => Some("which fewer had"),
            _ if !wanted.is_none_or(matches) => Some("and others are there"),
            _ => None,
        };
        if let Some(fault) = fault {
            let text = format!(
                "{host} says of key {key} {written:?}, {fault}: {holders} had it, {before:?} was \
                 known before, {after:?} after, of {wanted:?}"
            );
            self.violate(Rule::Acked, text);
        }
    }

    /// Records that a node accepted a client's write. Of two concurrent writes, the one with the
    /// higher version is the last, whichever is answered first.
    pub(crate) fn accepted_from(&mut self, client: usize, key: usize, own: AcknowledgedWrite) {
        let last = self.own.entry((client, key)).or_insert(own);
        match last.version > own.version && own.at_us < last.at_us + OWN_US {
            true => last.at_us = own.at_us,
            false => *last = own,
        }
    }

    /// A node answered a client's write with this version. The client does not know yet, if it is one of many.
    pub(crate) fn answered(&mut self, client: usize, key: usize, version: Version) {
        let last = self.answered.entry((client, key)).or_insert(version);
        *last = version.max(*last);
    }

    /// Returns whether a later write of a client's key was answered than `own`: then the node of that one is asked.
    pub(crate) fn has_later(&self, client: usize, key: usize, own: Version) -> bool {
        self.answered.get(&(client, key)).is_some_and(|last| *last > own)
    }

    /// The write of a key that its client is to see when it begins to read now.
    pub(crate) fn own(&self, client: usize, key: usize) -> Option<AcknowledgedWrite> {
        let own = self.own.get(&(client, key))?;
        (self.now_us < own.at_us + OWN_US).then_some(*own)
    }

    /// A node gave this version now.
    pub(crate) fn accepted(&mut self, version: Version) {
        self.accepted.insert(version, self.now_us);
    }

    /// Returns the time at which a version was assigned.
    pub(crate) fn accepted_at(&self, version: Version) -> Option<u64> {
        self.accepted.get(&version).copied()
    }

    /// Returns whether a node has evicted, or could not keep, a value.
    pub(crate) fn makes_room(&self) -> bool {
        self.makes_room
    }

    /// One has.
    pub(crate) fn made_room(&mut self) {
        self.makes_room = true;
    }

    /// Returns whether a version of a key belongs to a value that does not expire soon.
    pub(crate) fn is_to_live(&self, key: usize, version: Version) -> bool {
        let id = self.versions.get(&(version, key)).copied().unwrap_or(0);
        let write = id.checked_sub(1).and_then(|at| self.writes.get(usize::try_from(at).ok()?));
        write.is_some_and(|write| {
            let until_us = write.taken_us.zip(write.ttl_ms).map(|(at, ms)| at + ms * 1_000);
            until_us.is_some_and(|until_us| until_us > self.now_us + LIFE_US)
                && !self.may_be_purged((key, id), version, LIFE_US)
        })
    }
}
