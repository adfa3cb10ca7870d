//! Metadata of an entry, set by its writer: tagged fields that nodes store and forward unchanged, so that
//! clients in all regions treat the entry alike.
//!
//! The lifetime of an entry is its fresh time plus the longer of the two stale times. The age of an entry
//! follows from its remaining lifetime, so that no clocks are compared.

mod description;
mod idle;

use alloc::{boxed::Box, string::String, vec::Vec};

use bytes::{Bytes, BytesMut};

use self::description::Description;
pub use self::description::{
    CONTENT_ENCODING_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, DescriptionError, ORIGIN_BYTES_MAX,
    ORIGINS_MAX,
};
use crate::{
    purge::TargetId,
    ttl::{InvalidTtl, Ttl},
    version::Version,
    wire::{
        DecodeError, Writer,
        field::{Field, Reader, each_field, varint},
    },
};

/// The most tags of one entry.
pub const TAGS_MAX: usize = 64;

/// The most bytes of all tags of an entry that are kept as text. Of further tags the hashes are kept: they are
/// purged alike, but not listed.
pub const TAG_TEXT_BYTES_MAX: usize = 1_000;

/// The longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// The encoding of a value, chosen by its writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// The value as it is.
    #[default]
    Plain,
    /// An LZ4 block after the decompressed size as four bytes, little-endian.
    Lz4,
}

/// The kind of a memoized entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A value.
    #[default]
    Value,
    /// An error that the function returned, cached for a while (negative caching).
    Error,
}

/// The permitted use of an entry, by its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The entry is fresh.
    Fresh,
    /// The entry may be served while it is refreshed (stale-while-revalidate).
    Stale,
    /// The entry may be served only if a refresh failed (stale-if-error).
    OnlyOnError,
}

/// The metadata of an entry. The default takes no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// How long after its fresh time the value may be served while it is refreshed, in milliseconds.
    pub stale_while_ms: u64,
    /// How long after its fresh time the value may be served if a refresh failed, in milliseconds.
    pub stale_if_error_ms: u64,
    /// The last part of the fresh time, in which some callers refresh the value early, in milliseconds.
    pub refresh_ahead_ms: u64,
    /// The time to idle: the fresh time after each use, in milliseconds; 0 if uses do not matter.
    pub idle_ms: u64,
    /// With an idle time: the fresh time that was left when the entry was stored, however often it is used, in
    /// milliseconds. The entry is fresh for the shorter of the two.
    pub idle_most_ms: u64,
    /// The encoding of the value.
    pub encoding: Encoding,
    /// The kind of a memoized entry.
    pub kind: EntryKind,
    /// For a memoized value stored beside one of another shape: the version of that one, the base entry. The
    /// value may be used only while the base entry has this version.
    pub base: Option<Version>,
    tags: Vec<String>,
    hashed_tags: Vec<TargetId>,
    description: Option<Box<Description>>,
}

/// A tag that cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// The tag is empty, or longer than [`TAG_BYTES_MAX`].
    #[error("a tag has 1 to {TAG_BYTES_MAX} bytes")]
    Length,
    /// There are more than [`TAGS_MAX`] tags.
    #[error("an entry has at most {TAGS_MAX} tags")]
    TooMany,
}

mod tag {
    pub(super) const STALE_WHILE_MS: u32 = 1;
    pub(super) const STALE_IF_ERROR_MS: u32 = 2;
    pub(super) const REFRESH_AHEAD_MS: u32 = 3;
    pub(super) const ENCODING: u32 = 4;
    pub(super) const KIND: u32 = 5;
    pub(super) const TAG: u32 = 6;
    pub(super) const BASE: u32 = 7;
    pub(super) const ORIGIN: u32 = 8;
    pub(super) const HASHED_TAGS: u32 = 9;
    pub(super) const CONTENT_TYPE: u32 = 10;
    pub(super) const CONTENT_ENCODING: u32 = 11;
    pub(super) const IDLE_MS: u32 = 12;
    pub(super) const IDLE_MOST_MS: u32 = 13;
}

impl Metadata {
    /// Adds a tag. Adding the same tag again has no effect. A tag that does not fit into
    /// [`TAG_TEXT_BYTES_MAX`] with those before it is kept as a hash.
    ///
    /// # Errors
    /// [`TagError`] if the tag is empty, too long, or one too many.
    pub fn add_tag(&mut self, name: impl Into<String>) -> Result<(), TagError> {
        let name = name.into();
        if name.is_empty() || name.len() > TAG_BYTES_MAX {
            return Err(TagError::Length);
        }
        let id = TargetId::of_tag(name.as_bytes());
        if self.tags.contains(&name) || self.hashed_tags.contains(&id) {
            return Ok(());
        }
        if self.tags.len() + self.hashed_tags.len() >= TAGS_MAX {
            return Err(TagError::TooMany);
        }
        let bytes: usize = self.tags.iter().map(String::len).sum();
        if bytes + name.len() <= TAG_TEXT_BYTES_MAX {
            self.tags.push(name);
        } else {
            self.hashed_tags.push(id);
        }
        Ok(())
    }

    /// Returns the tags that are kept as text, in the order in which they were added.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns the number of tags that are kept as hashes.
    #[must_use]
    pub fn hashed_tags(&self) -> usize {
        self.hashed_tags.len()
    }

    /// Returns the identities of all tags.
    pub fn tag_ids(&self) -> impl Iterator<Item = TargetId> {
        let named = self.tags.iter().map(|tag| TargetId::of_tag(tag.as_bytes()));
        named.chain(self.hashed_tags.iter().copied())
    }

    /// Returns how long an entry is kept after its fresh time, in milliseconds.
    #[must_use]
    pub fn stale_ms(&self) -> u64 {
        self.stale_while_ms.max(self.stale_if_error_ms)
    }

    /// Returns the lifetime of an entry that is fresh for `fresh`: that plus the longer of its stale times.
    ///
    /// # Errors
    /// If it is above [`Ttl::MAX`].
    pub fn life(&self, fresh: Ttl) -> Result<Ttl, InvalidTtl> {
        Ttl::from_millis(fresh.as_millis().saturating_add(self.stale_ms()))
    }

    /// Shortens the stale times of an entry that is fresh for `fresh` so that its lifetime is within
    /// [`Ttl::MAX`], and returns that lifetime. Capping the lifetime alone would shorten the fresh time, which
    /// is the lifetime less the stale times.
    pub fn shorten_stale(&mut self, fresh: Ttl) -> Ttl {
        let most_ms = Ttl::MAX.as_millis() - fresh.as_millis();
        self.stale_while_ms = self.stale_while_ms.min(most_ms);
        self.stale_if_error_ms = self.stale_if_error_ms.min(most_ms);
        self.life(fresh).unwrap_or(Ttl::MAX)
    }

    /// Returns the permitted use of an entry with a remaining lifetime of `remaining_ms`.
    #[must_use]
    pub fn freshness(&self, remaining_ms: u64) -> Freshness {
        if self.fresh_ms(remaining_ms) > 0 {
            return Freshness::Fresh;
        }
        let past_ms = self.stale_ms() - remaining_ms;
        if past_ms < self.stale_while_ms { Freshness::Stale } else { Freshness::OnlyOnError }
    }

    /// Returns the remaining fresh time of an entry with a remaining lifetime of `remaining_ms`, in
    /// milliseconds; 0 if the entry is stale.
    #[must_use]
    pub fn fresh_ms(&self, remaining_ms: u64) -> u64 {
        remaining_ms.saturating_sub(self.stale_ms())
    }

    /// Encodes the metadata. The default is encoded as no bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        let mut bytes = BytesMut::new();
        let mut out = Writer::new(&mut bytes);
        let encoding = u64::from(self.encoding == Encoding::Lz4);
        let kind = u64::from(self.kind == EntryKind::Error);
        for (tag, number) in [
            (tag::STALE_WHILE_MS, self.stale_while_ms),
            (tag::STALE_IF_ERROR_MS, self.stale_if_error_ms),
            (tag::REFRESH_AHEAD_MS, self.refresh_ahead_ms),
            (tag::ENCODING, encoding),
            (tag::KIND, kind),
            (tag::IDLE_MS, self.idle_ms),
            (tag::IDLE_MOST_MS, self.idle_most_ms),
        ] {
            if number > 0 {
                out.number(tag, number);
            }
        }
        self.tags.iter().for_each(|name| out.bytes(tag::TAG, name.as_bytes()));
        if let Some(base) = self.base {
            out.bytes(tag::BASE, &base.to_bytes());
        }
        self.origins().iter().for_each(|url| out.bytes(tag::ORIGIN, url.as_bytes()));
        if !self.hashed_tags.is_empty() {
            let hashes: Vec<u8> =
                self.hashed_tags.iter().flat_map(|id| id.0.to_le_bytes()).collect();
            out.bytes(tag::HASHED_TAGS, &hashes);
        }
        let description = [
            (tag::CONTENT_TYPE, self.content_type()),
            (tag::CONTENT_ENCODING, self.content_encoding()),
        ];
        for (tag, text) in description {
            if let Some(text) = text {
                out.bytes(tag, text.as_bytes());
            }
        }
        bytes.freeze()
    }

    /// Decodes metadata. Fields of later releases are skipped.
    ///
    /// # Errors
    /// [`DecodeError`] if the metadata is damaged or names an unknown encoding or kind. The entry cannot be
    /// used then.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut metadata = Self::default();
        if bytes.is_empty() {
            return Ok(metadata);
        }
        Reader::new(bytes).each(|field| metadata.set(&field))?;
        Ok(metadata)
    }

    fn set(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let duration =
            |field: &Field<'_>| Ok::<_, DecodeError>(field.number()?.min(Ttl::MAX.as_millis()));
        match field.tag {
            tag::STALE_WHILE_MS => self.stale_while_ms = duration(field)?,
            tag::STALE_IF_ERROR_MS => self.stale_if_error_ms = duration(field)?,
            tag::REFRESH_AHEAD_MS => self.refresh_ahead_ms = duration(field)?,
            tag::IDLE_MS => self.idle_ms = duration(field)?,
            tag::IDLE_MOST_MS => self.idle_most_ms = duration(field)?,
            tag::ENCODING => {
                self.encoding = match field.number()? {
                    0 => Encoding::Plain,
                    1 => Encoding::Lz4,
                    _ => return Err(field.invalid()),
                }
            }
            tag::KIND => {
                self.kind = match field.number()? {
                    0 => EntryKind::Value,
                    1 => EntryKind::Error,
                    _ => return Err(field.invalid()),
                }
            }
            tag::TAG => {
                let name = field.text(TAG_BYTES_MAX)?;
                self.add_tag(name).map_err(|_| field.invalid())?;
            }
            tag::BASE => self.base = Some(Version::from_bytes(field.array()?)),
            tag::HASHED_TAGS => {
                let (hashes, rest) = field.content.as_chunks::<8>();
                if !rest.is_empty() || self.tags.len() + hashes.len() > TAGS_MAX {
                    return Err(field.invalid());
                }
                self.hashed_tags = hashes.iter().copied().map(target_id).collect();
            }
            tag::ORIGIN | tag::CONTENT_TYPE | tag::CONTENT_ENCODING => self.describe(field)?,
            _ => {}
        }
        Ok(())
    }

    fn describe(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let text = field.text(ORIGIN_BYTES_MAX)?;
        let described = match field.tag {
            tag::ORIGIN => self.add_origin(text),
            tag::CONTENT_TYPE => self.set_content_type(text),
            _ => self.set_content_encoding(text),
        };
        described.map_err(|_| field.invalid())
    }
}

fn target_id(bytes: [u8; 8]) -> TargetId {
    TargetId(u64::from_le_bytes(bytes))
}

/// Returns whether encoded metadata has a tag with this identity, without decoding the rest.
#[must_use]
pub fn has_tag(metadata: &[u8], wanted: TargetId) -> bool {
    let mut is_found = false;
    each_tag_id(metadata, |id| is_found |= id == wanted);
    is_found
}

/// Calls `take` with the identity of each tag in encoded metadata, without decoding the rest.
pub(crate) fn each_tag_id(metadata: &[u8], mut take: impl FnMut(TargetId)) {
    each_field(metadata, |tag, content| match tag {
        tag::TAG => take(TargetId::of_tag(content)),
        tag::HASHED_TAGS => {
            content.as_chunks().0.iter().copied().map(target_id).for_each(&mut take);
        }
        _ => {}
    });
}

/// Returns how long an entry with this encoded metadata is kept after its fresh time, in milliseconds.
pub(crate) fn stale_ms_of(metadata: &[u8]) -> u64 {
    let mut stale_ms = 0;
    each_field(metadata, |tag, content| {
        if matches!(tag, tag::STALE_WHILE_MS | tag::STALE_IF_ERROR_MS)
            && let Ok((ms, _)) = varint(content)
        {
            stale_ms = stale_ms.max(ms.min(Ttl::MAX.as_millis()));
        }
    });
    stale_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::METADATA_BYTES_MAX, version::Incarnation};

    fn full() -> Metadata {
        let mut metadata = Metadata {
            stale_while_ms: 2_000,
            stale_if_error_ms: 5_000,
            refresh_ahead_ms: 300,
            encoding: Encoding::Lz4,
            kind: EntryKind::Error,
            base: Some(Version::new(0x0102, Incarnation(3))),
            ..Metadata::default()
        };
        metadata.add_tag("users").unwrap();
        metadata.add_tag("user:7").unwrap();
        metadata.add_origin("s3://bucket/7").unwrap();
        metadata.set_content_type("image/png").unwrap();
        metadata.set_content_encoding("gzip").unwrap();
        metadata
    }

    #[test]
    fn metadata_survives_the_round_trip() {
        assert_eq!(Metadata::decode(&full().encode()), Ok(full()));
        assert_eq!(Metadata::default().encode(), Bytes::new());
        assert_eq!(Metadata::decode(&Bytes::new()), Ok(Metadata::default()));
    }

    #[test]
    fn bytes_are_pinned() {
        let expected = b"\x01\x02\xd0\x0f\x02\x02\x88\x27\x03\x02\xac\x02\x04\x01\x01\x05\x01\x01\
                         \x06\x05users\x06\x06user:7\
                         \x07\x10\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\
                         \x08\x0ds3://bucket/7\x0a\x09image/png\x0b\x04gzip";
        assert_eq!(full().encode().as_ref(), &expected[..]);
    }

    #[test]
    fn unknown_fields_are_skipped_and_unknown_values_are_errors() {
        let later = Bytes::from_static(b"\x63\x01\x00\x01\x01\x05");
        assert_eq!(Metadata::decode(&later).unwrap().stale_while_ms, 5);
        for useless in [
            &b"\x04\x01\x09"[..],
            b"\x05\x01\x09",
            b"\x06\x00",
            b"\x01\x05\x01",
            b"\x06",
            b"\x07\x02\x01\x02",
            b"\x08\x01a",
            b"\x0a\x05a/\r\nb",
            b"\x0b\x02a,",
        ] {
            assert!(Metadata::decode(&Bytes::copy_from_slice(useless)).is_err(), "{useless:?}");
        }
    }

    #[test]
    fn number_and_length_of_tags_are_bounded() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.add_tag(""), Err(TagError::Length));
        assert_eq!(metadata.add_tag("x".repeat(TAG_BYTES_MAX + 1)), Err(TagError::Length));
        let name = |n: usize| alloc::format!("{n:0width$}", width = TAG_BYTES_MAX);
        for n in 0..TAGS_MAX {
            metadata.add_tag(name(n)).unwrap();
            metadata.add_tag(name(n)).unwrap();
        }
        assert_eq!(metadata.add_tag(name(TAGS_MAX)), Err(TagError::TooMany));
        assert_eq!((metadata.tags().len(), metadata.hashed_tags()), (7, TAGS_MAX - 7));
        let ids: Vec<_> = (0..TAGS_MAX).map(|n| TargetId::of_tag(name(n).as_bytes())).collect();
        assert!(metadata.tag_ids().eq(ids.iter().copied()));
        // With the largest of all other fields.
        metadata.stale_while_ms = Ttl::MAX.as_millis();
        (metadata.stale_if_error_ms, metadata.refresh_ahead_ms) =
            (metadata.stale_while_ms, metadata.stale_while_ms);
        (metadata.encoding, metadata.kind) = (Encoding::Lz4, EntryKind::Error);
        metadata.base = Some(Version::from_bytes([0xff; 16]));
        let long = "x".repeat(ORIGIN_BYTES_MAX);
        for n in 0..ORIGINS_MAX {
            metadata.add_origin(&alloc::format!("a{n}://{long}")[..ORIGIN_BYTES_MAX]).unwrap();
        }
        metadata.set_content_type(&alloc::format!("a/{long}")[..CONTENT_TYPE_BYTES_MAX]).unwrap();
        metadata.set_content_encoding(&long[..CONTENT_ENCODING_BYTES_MAX]).unwrap();
        let encoded = metadata.encode();
        assert!(encoded.len() <= METADATA_BYTES_MAX);
        assert_eq!(Metadata::decode(&encoded), Ok(metadata.clone()));
        let mut read = Vec::new();
        each_tag_id(&encoded, |id| read.push(id));
        assert_eq!(read, ids);
        assert!(ids.iter().all(|id| has_tag(&encoded, *id)));
        assert!(!has_tag(&encoded, TargetId::of_tag(b"other")));
        assert_eq!(stale_ms_of(&encoded), metadata.stale_ms());
        assert_eq!(stale_ms_of(b"\x01\x02\xd0\x0f\x02\x05"), 2_000);
    }

    #[test]
    fn freshness_follows_from_the_remaining_lifetime() {
        let metadata = full();
        assert_eq!(metadata.life(Ttl::from_secs(10).unwrap()).map(Ttl::as_millis), Ok(15_000));
        assert_eq!(metadata.fresh_ms(15_000), 10_000);
        assert_eq!(metadata.freshness(5_001), Freshness::Fresh);
        assert_eq!(metadata.freshness(5_000), Freshness::Stale);
        assert_eq!(metadata.freshness(3_001), Freshness::Stale);
        assert_eq!(metadata.freshness(3_000), Freshness::OnlyOnError);
        assert_eq!(metadata.freshness(0), Freshness::OnlyOnError);
        assert_eq!(Metadata::default().freshness(1), Freshness::Fresh);
        assert_eq!(Metadata::default().freshness(0), Freshness::OnlyOnError);
    }

    #[test]
    fn unlimited_stale_times_do_not_shorten_the_fresh_time() {
        for fresh in [Ttl::MIN, Ttl::from_secs(60).unwrap(), Ttl::MAX] {
            let mut metadata = Metadata { stale_while_ms: 7, ..Metadata::default() };
            metadata.stale_if_error_ms = u64::MAX;
            assert!(metadata.life(fresh).is_err());
            let life = metadata.shorten_stale(fresh);
            assert_eq!(life, Ttl::MAX);
            assert_eq!(metadata.life(fresh), Ok(life));
            let read = Metadata::decode(&metadata.encode()).unwrap();
            assert_eq!(read.fresh_ms(life.as_millis()), fresh.as_millis());
            assert_eq!(read.stale_while_ms, 7_u64.min(Ttl::MAX.as_millis() - fresh.as_millis()));
        }
    }
}
