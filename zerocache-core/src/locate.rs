//! Where the copies of a key are, and whether they agree.
//!
//! A node answers [`Request::Locate`](crate::wire::Request::Locate) with what it and others hold: one
//! [`NodeCopies`] for each node that it knows. [`Judgement`] compares the copies of one key.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    entry::Entry,
    metadata::stale_ms_of,
    store::EntryRef,
    time::{Instant, Now},
    version::Version,
    wire::{NodeInfo, NodeState},
};

/// The most keys of one request.
pub const LOCATED_KEYS_MAX: usize = 64;

/// The nodes about which a request asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// The node that is asked.
    #[default]
    Node,
    /// All nodes of its region that it knows.
    Region,
    /// All nodes of the cluster that it knows.
    Cluster,
}

/// What a node holds of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyState {
    /// Nothing is known of the key.
    #[default]
    Nothing,
    /// The version of a value that was deleted, has expired, was evicted or was purged.
    Tombstone,
    /// A value.
    Value,
}

impl CopyState {
    /// The name of the state in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Tombstone => "tombstone",
            Self::Value => "value",
        }
    }
}

/// What one node holds of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCopy {
    /// What is held.
    pub state: CopyState,
    /// Its version; none of nothing.
    pub version: Option<Version>,
    /// The remaining lifetime of a value, in milliseconds.
    pub remaining_ms: u64,
    /// The remaining fresh time of a value, in milliseconds; 0 if it is stale.
    pub fresh_ms: u64,
    /// The length of a value as it is stored, in bytes.
    pub bytes: u64,
    /// The xxh3-128 of metadata and value as they are stored, if it was asked for.
    pub digest: Option<u128>,
    /// Whether a purge ended the value, which is held, but not served.
    pub is_purged: bool,
    /// Whether other nodes keep the value of the key: all that this one is to know is its version.
    pub is_witness: bool,
}

impl KeyCopy {
    /// Returns what is left of a value of this version.
    pub(crate) fn tombstone(version: Version, is_purged: bool) -> Self {
        let state = CopyState::Tombstone;
        Self { state, version: Some(version), is_purged, ..Self::default() }
    }

    /// Returns the copy of an entry that is served until `expires`, without its digest.
    pub(crate) fn of(entry: &EntryRef<'_>, expires: Instant, now: Now) -> Self {
        let remaining_ms = expires.since_ms(now.mono);
        Self {
            state: CopyState::Value,
            version: Some(entry.version),
            remaining_ms,
            fresh_ms: remaining_ms.saturating_sub(stale_ms_of(entry.metadata)),
            bytes: entry.value.len() as u64,
            digest: None,
            is_purged: false,
            is_witness: false,
        }
    }

    /// Returns whether the node has taken in `version`, or a later one.
    #[must_use]
    pub fn has(&self, version: Version) -> bool {
        self.version.is_some_and(|held| held >= version)
    }
}

/// Returns the digest of an entry by which copies of one version are compared.
pub(crate) fn digest(entry: &Entry) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&entry.metadata);
    hasher.update(&entry.value);
    hasher.digest128()
}

/// Whether a node said what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It did.
    Answered,
    /// It did not answer in time, or is known to be unreachable.
    Unreachable,
    /// It answers, and does not know the request: it is of an earlier release.
    Unsupported,
}

impl Reply {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A node, and what it holds of each key that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCopies {
    /// The node: by its own words if it answered.
    pub node: NodeInfo,
    /// Whether it answered.
    pub reply: Reply,
    /// One copy for each key, in the order of the keys, if it answered; otherwise empty.
    pub copies: Vec<KeyCopy>,
}

impl NodeCopies {
    /// Returns the node's readiness, if it answered.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        (self.reply == Reply::Answered).then_some(self.node.state)
    }
}

/// How a node's copy compares with those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A reader gets from it what the newest version says.
    Same,
    /// It has an older version only.
    Behind,
    /// It knows nothing of a key that others have a value of.
    Missing,
    /// It had the newest value and dropped it, because its memory was full or the value expired a moment
    /// before that of others. No disagreement: it refuses older versions.
    Evicted,
    /// It has no value, and is to have none: other nodes own the key. It may know the newest version, or nothing any
    /// more.
    Witness,
    /// It has the newest version with another content than most nodes.
    Damaged,
    /// It did not answer.
    Unreachable,
    /// It is of a release that cannot say.
    Unsupported,
}

impl Verdict {
    /// The name of the verdict in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Behind => "behind",
            Self::Missing => "missing",
            Self::Evicted => "evicted",
            Self::Witness => "witness",
            Self::Damaged => "damaged",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
        }
    }

    /// Returns whether a reader of the node gets something else than what the newest version says.
    #[must_use]
    pub const fn disagrees(self) -> bool {
        matches!(self, Self::Behind | Self::Missing | Self::Damaged)
    }
}

/// What the copies of a key say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The newest version that any node knows.
    pub newest: Option<Version>,
    /// Whether a node serves a value of that version.
    pub has_value: bool,
    /// Whether a purge ended the value of that version.
    pub is_purged: bool,
    /// The digest that most of the values of that version have; none without digests, and where no digest has
    /// more than half of them.
    pub digest: Option<u128>,
    /// The verdict on each node, in the order of the nodes.
    pub verdicts: Vec<Verdict>,
}

impl Judgement {
    /// Compares the copies of the key with this index.
    #[must_use]
    pub fn of(nodes: &[NodeCopies], key: usize) -> Self {
        let copy_of = |node: &NodeCopies| node.copies.get(key).copied();
        let copies: Vec<_> = nodes.iter().filter_map(copy_of).collect();
        let newest = copies.iter().filter_map(|copy| copy.version).max();
        let newest_copies = || copies.iter().filter(|copy| copy.version == newest);
        // A purge is newer than the value that it ended, wherever it is not known yet.
        let is_purged = newest_copies().any(|copy| copy.is_purged);
        let values = || newest_copies().filter(|copy| copy.state == CopyState::Value);
        let has_value = values().next().is_some() && !is_purged;
        let digest = majority(values().map(|copy| copy.digest));
        let judge_copy = |copy: KeyCopy| match (copy.state, has_value) {
            (CopyState::Nothing, true) if copy.is_witness => Verdict::Witness,
            (CopyState::Nothing, true) => Verdict::Missing,
            (CopyState::Nothing, false) => Verdict::Same,
            _ if copy.version < newest => Verdict::Behind,
            (CopyState::Tombstone, true) if copy.is_witness => Verdict::Witness,
            (CopyState::Tombstone, true) => Verdict::Evicted,
            (CopyState::Tombstone, false) => Verdict::Same,
            (CopyState::Value, false) => Verdict::Behind,
            (CopyState::Value, true) if copy.digest.is_some() && copy.digest != digest => {
                Verdict::Damaged
            }
            (CopyState::Value, true) => Verdict::Same,
        };
        let judge = |node: &NodeCopies| match (node.reply, copy_of(node)) {
            (Reply::Answered, Some(copy)) => judge_copy(copy),
            (Reply::Unsupported, _) => Verdict::Unsupported,
            (Reply::Unreachable | Reply::Answered, _) => Verdict::Unreachable,
        };
        let verdicts = nodes.iter().map(judge).collect();
        Self { newest, has_value, is_purged, digest, verdicts }
    }

    /// Returns whether every node that answered agrees.
    #[must_use]
    pub fn agrees(&self) -> bool {
        !self.verdicts.iter().any(|verdict| verdict.disagrees())
    }
}

/// Returns the digest that more than half of the values with a digest have.
fn majority(digests: impl Iterator<Item = Option<u128>>) -> Option<u128> {
    let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
    digests.flatten().for_each(|digest| *counts.entry(digest).or_default() += 1);
    let all: usize = counts.values().sum();
    counts.into_iter().find(|(_, count)| 2 * count > all).map(|(digest, _)| digest)
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec};

    use super::*;
    use crate::version::Incarnation;

    fn version(n: u64) -> Version {
        Version::new(n << Version::COUNTER_BITS, Incarnation(1))
    }

    fn node(reply: Reply, copies: Vec<KeyCopy>) -> NodeCopies {
        let node = NodeInfo {
            incarnation: Incarnation(1),
            region: String::from("a"),
            zone: None,
            addresses: Vec::new(),
            state: NodeState::InSync,
            bytes_max: 0,
            name: None,
            replicas: crate::cluster::Replicas::All,
        };
        NodeCopies { node, reply, copies }
    }

    fn value(n: u64, digest: u128) -> KeyCopy {
        let state = CopyState::Value;
        KeyCopy { state, version: Some(version(n)), digest: Some(digest), ..KeyCopy::default() }
    }

    fn judged(copies: &[KeyCopy]) -> Vec<Verdict> {
        let nodes: Vec<_> = copies.iter().map(|copy| node(Reply::Answered, vec![*copy])).collect();
        Judgement::of(&nodes, 0).verdicts
    }

    #[test]
    fn copies_of_a_value_are_told_apart() {
        use Verdict::{Behind, Damaged, Evicted, Missing, Same};
        let gone = |n| KeyCopy::tombstone(version(n), false);
        let nothing = KeyCopy::default();
        let copies =
            [value(2, 5), value(2, 5), value(2, 6), value(1, 5), gone(2), gone(1), nothing];
        assert_eq!(judged(&copies), [Same, Same, Damaged, Behind, Evicted, Behind, Missing]);
        // Nobody can say which of two is right.
        assert_eq!(judged(&[value(2, 5), value(2, 6)]), [Damaged, Damaged]);
        // Without digests versions decide.
        let plain = KeyCopy { digest: None, ..value(2, 0) };
        assert_eq!(judged(&[plain, plain]), [Same, Same]);
    }

    #[test]
    fn witness_lacks_no_value() {
        use Verdict::{Behind, Missing, Same, Witness};
        let witness = |copy: KeyCopy| KeyCopy { is_witness: true, ..copy };
        let gone = |n| witness(KeyCopy::tombstone(version(n), false));
        let nothing = KeyCopy::default();
        // Also one that holds a value until its owners have it.
        let copies =
            [value(2, 5), nothing, gone(2), gone(1), witness(nothing), witness(value(2, 5))];
        assert_eq!(judged(&copies), [Same, Missing, Witness, Behind, Witness, Same]);
        // A key without a value is the same everywhere.
        assert_eq!(judged(&[gone(2), KeyCopy::tombstone(version(2), false)]), [Same, Same]);
    }

    #[test]
    fn key_that_is_gone_is_the_same_wherever_nothing_is_served() {
        use Verdict::{Behind, Same};
        let gone = |n| KeyCopy::tombstone(version(n), false);
        assert_eq!(
            judged(&[gone(2), KeyCopy::default(), value(1, 5), gone(1)]),
            [Same, Same, Behind, Behind]
        );
        assert_eq!(judged(&[KeyCopy::default(); 2]), [Same, Same]);
        // A purge that one node does not know yet.
        let purged = KeyCopy::tombstone(version(2), true);
        assert_eq!(judged(&[purged, value(2, 5), gone(2)]), [Same, Behind, Same]);
    }

    #[test]
    fn silent_nodes_are_no_disagreement() {
        let nodes = [
            node(Reply::Answered, vec![value(1, 1)]),
            node(Reply::Unreachable, Vec::new()),
            node(Reply::Unsupported, Vec::new()),
        ];
        let judgement = Judgement::of(&nodes, 0);
        assert_eq!(judgement.verdicts, [Verdict::Same, Verdict::Unreachable, Verdict::Unsupported]);
        assert!(judgement.agrees() && judgement.has_value);
        assert_eq!((judgement.newest, judgement.digest), (Some(version(1)), Some(1)));
    }
}
