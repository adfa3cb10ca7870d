//! Purges: writes that end the values of many keys at once, without naming the keys.
//!
//! A purge is an entry of its own, under a key that only nodes write: a hard purge and a soft purge of each
//! [`PurgeTarget`] have one key each. So a purge is versioned, replicated, acknowledged, repaired, copied and
//! kept in snapshots by the same rules as any write, and two purges merge to the later one. The store judges
//! entries by the purges that it holds (`store/purges.rs`).

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    entry::{Change, Record},
    key::Key,
    metadata::{TAG_BYTES_MAX, TagError, each_tag_id},
    name::{self, InvalidName},
    version::{Incarnation, Version},
    wire::{
        DecodeError, Writer,
        field::{Field, Reader},
    },
};

/// The first bytes of keys that only nodes write. Clients' writes of such keys are refused, and reads find
/// nothing.
pub const RESERVED_PREFIX: &[u8] = b"\0zerocache\0";

/// The longest time by which a purge may judge later writes too, in milliseconds.
pub const HOLD_MS_MAX: u64 = 11_000;

/// The length of the id of a memoized function, in bytes.
pub const FUNCTION_ID_BYTES: usize = 16;

/// The entries that a purge ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PurgeTarget {
    /// All entries.
    Everything,
    /// The memoized results of one namespace.
    Namespace(String),
    /// The memoized results of one function, in one namespace.
    Function {
        /// The namespace; empty for clients without one.
        namespace: String,
        /// The id of the function.
        id: [u8; FUNCTION_ID_BYTES],
    },
    /// The entries with a tag.
    Tag(String),
}

/// What a purge does with the entries that it judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PurgeMode {
    /// Ends them.
    #[default]
    Hard,
    /// Ends their fresh time: they may be served stale, if they have stale times, until they are refreshed.
    Soft,
}

/// The identity of a purge target: entries carry or imply it, purges and the feed of changes name it.
///
/// A hash, so that a collision is possible. It purges too much, never too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u64);

/// Kinds of targets: parts of reserved keys, and seeds of hashes.
mod kind {
    pub(super) const EVERYTHING: u8 = b'e';
    pub(super) const SCOPE: u8 = b's';
    pub(super) const TAG: u8 = b't';
}

impl TargetId {
    /// The identity of [`PurgeTarget::Everything`].
    pub const EVERYTHING: Self = Self(0x6576_6572_7974_6869);

    /// Returns the identity of a tag.
    #[inline]
    #[must_use]
    pub fn of_tag(tag: &[u8]) -> Self {
        Self(xxh3_64_with_seed(tag, u64::from(kind::TAG)))
    }

    /// Returns the identity of a namespace or function: its bytes in memoized keys.
    #[inline]
    fn of_scope(bytes: &[u8]) -> Self {
        Self(xxh3_64_with_seed(bytes, u64::from(kind::SCOPE)))
    }

    /// Calls `take` with each target that an entry with this key and encoded metadata belongs to.
    pub(crate) fn each(key: &[u8], metadata: &[u8], mut take: impl FnMut(Self)) {
        take(Self::EVERYTHING);
        Self::of_key(key).into_iter().flatten().for_each(&mut take);
        each_tag_id(metadata, take);
    }

    /// Returns the identities of the namespace and the function that a memoized key is of.
    #[must_use]
    pub fn of_key(key: &[u8]) -> [Option<Self>; 2] {
        let Some(([scheme, length], _)) = key.split_first_chunk() else { return [None; 2] };
        if !is_memoized(*scheme) {
            return [None; 2];
        }
        let namespace_end = 2 + usize::from(*length);
        let scope = |end: usize| key.get(1..end).map(Self::of_scope);
        let has_function = *scheme < 0x20;
        let function = has_function.then(|| scope(namespace_end + FUNCTION_ID_BYTES)).flatten();
        [scope(namespace_end), function]
    }
}

/// Whether keys with this first byte are memoized: scheme, length of the namespace, namespace, and for results
/// (below 0x20) the function.
pub(crate) const fn is_memoized(scheme: u8) -> bool {
    matches!(scheme, 0x01..=0x1f | 0xf8..=0xff)
}

impl PurgeTarget {
    /// Returns the target of a tag.
    ///
    /// # Errors
    /// [`TagError::Length`] if no entry can have this tag.
    pub fn tag(tag: &str) -> Result<Self, TagError> {
        match tag.len() {
            1..=TAG_BYTES_MAX => Ok(Self::Tag(tag.to_owned())),
            _ => Err(TagError::Length),
        }
    }

    /// Returns the target of a namespace; an empty text stands for clients without one.
    ///
    /// # Errors
    /// If no client can have this namespace.
    pub fn namespace(name: &str) -> Result<Self, InvalidName> {
        if !name.is_empty() {
            name::check(name)?;
        }
        Ok(Self::Namespace(name.to_owned()))
    }

    /// Returns the identity.
    #[must_use]
    pub fn id(&self) -> TargetId {
        match self {
            Self::Everything => TargetId::EVERYTHING,
            Self::Tag(tag) => TargetId::of_tag(tag.as_bytes()),
            Self::Namespace(_) | Self::Function { .. } => TargetId::of_scope(&self.detail()),
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Everything => kind::EVERYTHING,
            Self::Namespace(_) | Self::Function { .. } => kind::SCOPE,
            Self::Tag(_) => kind::TAG,
        }
    }

    /// The bytes that tell targets of one kind apart; for scopes those in memoized keys.
    fn detail(&self) -> Vec<u8> {
        let scope = |namespace: &str, id: &[u8]| {
            let length = u8::try_from(namespace.len()).unwrap_or(u8::MAX);
            [&[length], namespace.as_bytes(), id].concat()
        };
        match self {
            Self::Everything => Vec::new(),
            Self::Namespace(namespace) => scope(namespace, b""),
            Self::Function { namespace, id } => scope(namespace, id),
            Self::Tag(tag) => tag.as_bytes().to_vec(),
        }
    }

    /// Returns the bytes that name the target in messages.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        [&[self.kind()], &self.detail()[..]].concat().into()
    }

    /// Decodes what [`encode`](Self::encode) returned.
    ///
    /// # Errors
    /// `None` if the bytes are no target.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, detail) = bytes.split_first()?;
        match *kind {
            kind::EVERYTHING if detail.is_empty() => Some(Self::Everything),
            kind::TAG => Self::tag(core::str::from_utf8(detail).ok()?).ok(),
            kind::SCOPE => {
                let (length, rest) = detail.split_first()?;
                let (namespace, id) = rest.split_at_checked(usize::from(*length))?;
                let target = Self::namespace(core::str::from_utf8(namespace).ok()?).ok()?;
                match target {
                    Self::Namespace(namespace) if !id.is_empty() => {
                        Some(Self::Function { namespace, id: id.try_into().ok()? })
                    }
                    namespace => Some(namespace),
                }
            }
            _ => None,
        }
    }

    /// Returns the key of the purges of this target.
    #[must_use]
    pub fn key(&self, mode: PurgeMode) -> Key {
        let mode = match mode {
            PurgeMode::Hard => b'h',
            PurgeMode::Soft => b's',
        };
        Key::reserved([RESERVED_PREFIX, b"purge\0", &[mode], &self.encode()].concat().into())
    }

    /// Returns target and mode of the purges with this key.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<(Self, PurgeMode)> {
        let rest = key.strip_prefix(RESERVED_PREFIX)?.strip_prefix(b"purge\0")?;
        let (mode, target) = rest.split_first()?;
        let mode = match mode {
            b'h' => PurgeMode::Hard,
            b's' => PurgeMode::Soft,
            _ => return None,
        };
        Some((Self::decode(target)?, mode))
    }
}

/// Returns whether only nodes write this key.
#[inline]
#[must_use]
pub fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&0) && key.starts_with(RESERVED_PREFIX)
}

/// The value of the entry of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PurgeValue {
    /// How much later than the purge an entry that it ends may be stamped, in milliseconds.
    pub(crate) hold_ms: u64,
    /// The lifetime with which the entry of the purge was stored, in milliseconds: what has passed of it is
    /// the age of the purge, on every node.
    pub(crate) life_ms: u64,
}

mod tag {
    pub(super) const HOLD_MS: u32 = 1;
    pub(super) const LIFE_MS: u32 = 2;
}

impl PurgeValue {
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::new();
        let mut out = Writer::new(&mut bytes);
        if self.hold_ms > 0 {
            out.number(tag::HOLD_MS, self.hold_ms);
        }
        out.number(tag::LIFE_MS, self.life_ms);
        bytes.freeze()
    }

    pub(crate) fn decode(value: &Bytes) -> Result<Self, DecodeError> {
        let mut purge = Self { hold_ms: 0, life_ms: 0 };
        Reader::new(value).each(|field: Field<'_>| {
            match field.tag {
                tag::HOLD_MS => purge.hold_ms = field.number()?.min(HOLD_MS_MAX),
                tag::LIFE_MS => purge.life_ms = field.number()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(purge)
    }

    /// The version below which entries are judged by a purge of `version`.
    pub(crate) const fn judges_below(self, version: Version) -> Version {
        if self.hold_ms == 0 {
            return version;
        }
        let stamp = version.stamp().saturating_add(self.hold_ms << Version::COUNTER_BITS);
        Version::new(stamp, Incarnation(u64::MAX))
    }
}

/// Returns the target of a purge, and the version below which it ends entries; `None` if the record is none.
pub(crate) fn purged_by(record: &Record) -> Option<(TargetId, Version)> {
    let Change::Put { value, .. } = &record.change else { return None };
    let (target, _) = PurgeTarget::of_key(record.key.as_bytes())?;
    let purge = PurgeValue::decode(value).ok()?;
    Some((target.id(), purge.judges_below(record.version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> [PurgeTarget; 6] {
        let namespace = || String::from("shop");
        [
            PurgeTarget::Everything,
            PurgeTarget::Namespace(String::new()),
            PurgeTarget::Namespace(namespace()),
            PurgeTarget::Function { namespace: String::new(), id: [7; 16] },
            PurgeTarget::Function { namespace: namespace(), id: [7; 16] },
            PurgeTarget::tag("file:Big.djvu").unwrap(),
        ]
    }

    #[test]
    fn targets_survive_the_round_trip_and_have_identities_of_their_own() {
        let all = targets();
        for (n, target) in all.iter().enumerate() {
            assert_eq!(PurgeTarget::decode(&target.encode()).as_ref(), Some(target));
            for mode in [PurgeMode::Hard, PurgeMode::Soft] {
                let key = target.key(mode);
                assert!(is_reserved(key.as_bytes()));
                assert_eq!(PurgeTarget::of_key(key.as_bytes()), Some((target.clone(), mode)));
            }
            assert!(all[..n].iter().all(|other| other.id() != target.id()));
        }
    }

    #[test]
    fn damaged_targets_are_none() {
        for bytes in
            [&b""[..], b"x", b"ex", b"t", b"s", b"s\x05abc", b"s\x00abc", b"s\x03a b", b"t\xff"]
        {
            assert_eq!(PurgeTarget::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(PurgeTarget::tag(""), Err(TagError::Length));
        assert_eq!(PurgeTarget::tag(&"x".repeat(TAG_BYTES_MAX + 1)), Err(TagError::Length));
        assert_eq!(PurgeTarget::of_key(b"\0zerocache\0purge\0xe"), None);
    }

    #[test]
    fn memoized_keys_imply_their_namespace_and_function() {
        let mut key = Vec::from(b"\x02\x04shop".as_slice());
        key.extend([7; 16]);
        key.extend(b"arguments");
        let [namespace, function] = TargetId::of_key(&key);
        assert_eq!(namespace, Some(targets()[2].id()));
        assert_eq!(function, Some(targets()[4].id()));
        key[0] = 0xfe;
        assert_eq!(TargetId::of_key(&key), [Some(targets()[2].id()), None]);
        assert_eq!(TargetId::of_key(b"\x02\x00"), [Some(targets()[1].id()), None]);
        assert_eq!(TargetId::of_key(b"plain text"), [None; 2]);
        assert_eq!(TargetId::of_key(b"\x02"), [None; 2]);
        assert_eq!(TargetId::of_key(b"\x02\x09shop"), [None; 2]);
    }

    #[test]
    fn values_survive_the_round_trip() {
        for hold_ms in [0, 1_500] {
            let value = PurgeValue { hold_ms, life_ms: 3_660_000 };
            assert_eq!(PurgeValue::decode(&value.encode()), Ok(value));
        }
        let version = Version::new(5 << 16, Incarnation(3));
        let purge = PurgeValue { hold_ms: 0, life_ms: 1 };
        assert_eq!(purge.judges_below(version), version);
        let held = PurgeValue { hold_ms: 2, ..purge }.judges_below(version);
        assert!(Version::new(7 << 16, Incarnation(9)) < held);
        assert!(Version::new((7 << 16) + 1, Incarnation(0)) > held);
    }
}
