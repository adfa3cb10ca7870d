//! The purges of a run: what they are of, when clients issue them, and which entries they end.
//!
//! They are drawn from a stream of their own, so that a seed has the same cluster, network and faults with
//! purges and without.

use std::fmt;

use bytes::Bytes;
use zerocache_core::{
    key::Key,
    metadata::Metadata,
    purge::{HOLD_MS_MAX, PurgeMode, PurgeTarget},
    version::{Incarnation, Version},
    wire::Ack,
};

use crate::{
    clock::SECOND_US,
    faults::PlannedFault,
    profile::Profile,
    random::{Random, splitmix},
    workload::WriteId,
};

/// Tags of entries.
const TAGS: [&str; 3] = ["red", "green", "blue"];

/// Namespaces and functions of memoized keys.
const NAMESPACES: [&str; 2] = ["", "shop"];
const FUNCTIONS: u8 = 2;

/// Of so many keys one is that of a memoized result.
const MEMOIZED_EVERY: usize = 3;

/// The first byte of the keys of memoized results.
const MEMOIZED_SCHEME: u8 = 1;

/// Of a thousand targets so many are all entries.
const EVERYTHING_PERMILLE: u64 = 60;

/// Of a thousand purges so many are a tag's.
const TAG_PERMILLE: u64 = 600;

/// Of a thousand purges so many repeat an earlier one.
const REPLAYED_PERMILLE: u64 = 150;

/// Of a thousand purges so many come with the begin or the end of a fault.
const WITH_FAULT_PERMILLE: u64 = 400;

/// The longest time between that and the purge, in microseconds.
const WITH_FAULT_US: u64 = 50_000;

/// Of a thousand targets so many are purged with a hold.
const HOLD_PERMILLE: u64 = 200;

/// Stale times of entries, in milliseconds.
const STALE_MS: [u64; 4] = [500, 3_000, 8_000, 20_000];

/// The entries that a purge ends, as the simulator knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Everything,
    Tag(usize),
    Namespace(usize),
    Function(usize, u8),
}

/// The purges of one target and mode: the versions of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    group: Group,
    /// How the entries end.
    pub mode: PurgeMode,
    /// Its purges also end what is written in this time after them, in milliseconds.
    pub hold_ms: u64,
}

/// A purge of a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlannedPurge {
    /// Its time, in microseconds.
    pub at_us: u64,
    /// The client that issues it.
    pub client: usize,
    /// The number of its register.
    pub register: usize,
    /// The required acknowledgement.
    pub ack: Ack,
    /// The number of the purge that it repeats.
    pub replays: Option<usize>,
}

impl Register {
    /// All of them, each with the hold of its purges.
    pub fn draw_all(random: &mut Random) -> Vec<Self> {
        let scopes = (0..NAMESPACES.len()).flat_map(|namespace| {
            let functions =
                (0..FUNCTIONS).map(move |function| Group::Function(namespace, function));
            [Group::Namespace(namespace)].into_iter().chain(functions)
        });
        let tags = (0..TAGS.len()).map(Group::Tag);
        let groups = [Group::Everything].into_iter().chain(tags).chain(scopes);
        let both = groups.flat_map(|group| {
            [PurgeMode::Hard, PurgeMode::Soft].map(|mode| Self { group, mode, hold_ms: 0 })
        });
        let mut all: Vec<_> = both.collect();
        for register in &mut all {
            if random.chance(HOLD_PERMILLE) {
                register.hold_ms = *random.pick(&[500, 2_000, HOLD_MS_MAX]);
            }
        }
        all
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> PurgeTarget {
        let namespace = |at: usize| NAMESPACES[at].to_owned();
        match self.group {
            Group::Everything => PurgeTarget::Everything,
            Group::Tag(at) => PurgeTarget::Tag(TAGS[at].to_owned()),
            Group::Namespace(at) => PurgeTarget::Namespace(namespace(at)),
            Group::Function(at, function) => {
                PurgeTarget::Function { namespace: namespace(at), id: [function; 16] }
            }
        }
    }

    /// The key of its purges.
    #[must_use]
    pub fn key(&self) -> Key {
        self.target().key(self.mode)
    }

    /// Returns whether its purges are of a write to the key of this number.
    #[must_use]
    pub fn is_of(&self, key: usize, id: WriteId) -> bool {
        match self.group {
            Group::Everything => true,
            Group::Tag(at) => tags_of(id)[at],
            Group::Namespace(at) => memoized_by(key).is_some_and(|(namespace, _)| namespace == at),
            Group::Function(at, function) => memoized_by(key) == Some((at, function)),
        }
    }

    /// The version below which a purge ends entries.
    #[must_use]
    pub fn judges_below(&self, purge: Version) -> Version {
        if self.hold_ms == 0 {
            return purge;
        }
        Version::new(purge.stamp() + (self.hold_ms << 16), Incarnation(u64::MAX))
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Group::Everything => write!(f, "everything")?,
            Group::Tag(at) => write!(f, "tag {}", TAGS[at])?,
            Group::Namespace(at) => write!(f, "namespace {:?}", NAMESPACES[at])?,
            Group::Function(at, function) => {
                write!(f, "function {function} of {:?}", NAMESPACES[at])?;
            }
        }
        if self.mode == PurgeMode::Soft {
            write!(f, ", soft")?;
        }
        if self.hold_ms > 0 { write!(f, ", hold {} ms", self.hold_ms) } else { Ok(()) }
    }
}

/// Draws the purges between two times.
pub fn draw(
    random: &mut Random,
    profile: Profile,
    (clients, registers): (usize, &[Register]),
    faults: &[PlannedFault],
    (from_us, until_us): (u64, u64),
) -> Vec<PlannedPurge> {
    if clients == 0 {
        return Vec::new();
    }
    let interval_us = match profile {
        Profile::Retention | Profile::Starts => SECOND_US * random.between(2, 30),
        _ => SECOND_US * random.between(1, 8),
    };
    let count = (until_us - from_us) / interval_us + 1;
    let mut times: Vec<u64> = (0..count)
        .map(|_| {
            let any_us = random.between(from_us, until_us - 1);
            if faults.is_empty() || !random.chance(WITH_FAULT_PERMILLE) {
                return any_us;
            }
            let fault = random.pick(faults);
            let near_us = *random.pick(&[fault.at_us, fault.until_us]);
            let at_us = (near_us + random.below(2 * WITH_FAULT_US)).saturating_sub(WITH_FAULT_US);
            at_us.clamp(from_us, until_us - 1)
        })
        .collect();
    times.sort_unstable();
    let mut all: Vec<PlannedPurge> = Vec::new();
    for at_us in times {
        let replays = (!all.is_empty() && random.chance(REPLAYED_PERMILLE))
            .then(|| random.index(all.len()))
            .map(|at| all[at].replays.unwrap_or(at));
        let register = match replays {
            Some(at) => all[at].register,
            None => draw_register(random, registers),
        };
        let client = random.index(clients);
        let ack = *random.pick(&[Ack::Local, Ack::Region, Ack::Region, Ack::All]);
        all.push(PlannedPurge { at_us, client, register, ack, replays });
    }
    all
}

/// Prints purges, one line for each.
pub fn print(purges: &[PlannedPurge], registers: &[Register]) {
    for (index, purge) in purges.iter().enumerate() {
        let PlannedPurge { at_us, client, register, ack, replays } = purge;
        let of = registers[*register];
        println!(
            "purge {index} at {at_us} us, client {client}: {of}; {ack:?}, replays {replays:?}"
        );
    }
}

fn draw_register(random: &mut Random, registers: &[Register]) -> usize {
    let is_everything = random.chance(EVERYTHING_PERMILLE);
    let is_tag = random.chance(TAG_PERMILLE);
    let is_wanted = |register: &Register| match register.group {
        Group::Everything => is_everything,
        Group::Tag(_) => !is_everything && is_tag,
        Group::Namespace(_) | Group::Function(..) => !is_everything && !is_tag,
    };
    let wanted: Vec<_> = (0..registers.len()).filter(|at| is_wanted(&registers[*at])).collect();
    *random.pick(&wanted)
}

/// Namespace and function of a key, if it is that of a memoized result.
const fn memoized_by(key: usize) -> Option<(usize, u8)> {
    if key % MEMOIZED_EVERY != 1 {
        return None;
    }
    let at = key / MEMOIZED_EVERY;
    Some((at % NAMESPACES.len(), (at / NAMESPACES.len()) as u8 % FUNCTIONS))
}

/// The bytes before the text of a key.
#[must_use]
pub fn key_prefix(key: usize) -> Vec<u8> {
    let Some((namespace, function)) = memoized_by(key) else { return Vec::new() };
    let name = NAMESPACES[namespace];
    [&[MEMOIZED_SCHEME, name.len() as u8], name.as_bytes(), &[function; 16]].concat()
}

fn bits_of(id: WriteId) -> u64 {
    splitmix(&mut (id ^ 0x0074_6167_7300))
}

/// Which tags the value of a write has.
fn tags_of(id: WriteId) -> [bool; TAGS.len()] {
    let bits = bits_of(id);
    let at = (bits >> 8) as usize % TAGS.len();
    std::array::from_fn(|tag| match bits % 10 {
        0..4 => false,
        4..8 => tag == at,
        8 => tag != at,
        _ => true,
    })
}

/// How long the value of a write may be served after its fresh time, in milliseconds.
#[must_use]
pub fn stale_ms(id: WriteId, ttl_ms: u64) -> u64 {
    let bits = bits_of(id) >> 16;
    match bits % 5 {
        0..3 => 0,
        _ => STALE_MS[(bits >> 8) as usize % STALE_MS.len()].min(ttl_ms / 2),
    }
}

/// The metadata of the value of a write.
#[must_use]
pub fn metadata(id: WriteId, ttl_ms: u64) -> Bytes {
    let mut metadata = Metadata::default();
    metadata.stale_while_ms = stale_ms(id, ttl_ms);
    for (tag, _) in TAGS.iter().zip(tags_of(id)).filter(|(_, has)| *has) {
        let added = metadata.add_tag(*tag);
        debug_assert!(added.is_ok(), "{tag} is a tag");
    }
    metadata.encode()
}

#[cfg(test)]
mod tests {
    use zerocache_core::purge::TargetId;

    use super::*;
    use crate::workload;

    /// The simulator's own knowledge agrees with the identities that entries carry and imply.
    #[test]
    fn registers_are_of_the_entries_that_carry_or_imply_their_target() {
        let registers = Register::draw_all(&mut Random::new(1));
        let keys = workload::keys(24, true);
        for (number, key) in keys.iter().enumerate() {
            for id in 1..200 {
                let metadata = Metadata::decode(&metadata(id, 60_000)).unwrap();
                let mut ids: Vec<_> = metadata.tag_ids().collect();
                ids.extend(TargetId::of_key(key.as_bytes()).into_iter().flatten());
                ids.push(TargetId::EVERYTHING);
                for register in &registers {
                    let is_of = register.is_of(number, id);
                    assert_eq!(is_of, ids.contains(&register.target().id()), "{register} {number}");
                }
            }
        }
    }
}
