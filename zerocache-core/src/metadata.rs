//! What the writer of an entry says of it beside the value: tagged fields that every node keeps and
//! forwards unchanged, so that every client in every region judges the entry alike.
//!
//! An entry lives for its fresh time and then for the longer of the two stale times. How old it is
//! follows from what remains of its life, so that no clock is compared.

use alloc::{string::String, vec::Vec};

use bytes::{Bytes, BytesMut};

use crate::{
    limits::METADATA_BYTES_MAX,
    ttl::{InvalidTtl, Ttl},
    version::Version,
    wire::{
        DecodeError, Writer,
        field::{Field, Reader},
    },
};

/// Most tags of one entry.
pub const TAGS_MAX: usize = 16;

/// The longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// How the bytes of a value are packed. Chosen by the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// As they are.
    #[default]
    Plain,
    /// An LZ4 block after its unpacked size as four bytes, low end first.
    Lz4,
}

/// What a memoized entry stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A value.
    #[default]
    Value,
    /// An error that the function returned, kept for a while so that it is not met again by everyone.
    Error,
}

/// How an entry may be used, by its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// As it is.
    Fresh,
    /// While somebody computes it anew.
    Stale,
    /// Only where computing it anew failed.
    OnlyOnError,
}

/// What stands beside a value. The default says nothing, and takes no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// How long after its fresh time the value may be served while it is computed anew, in
    /// milliseconds.
    pub stale_while_ms: u64,
    /// How long after its fresh time the value may be served where computing it failed, in
    /// milliseconds.
    pub stale_if_error_ms: u64,
    /// In this last part of its fresh time some callers compute the value anew, in milliseconds.
    pub refresh_ahead_ms: u64,
    /// How the value's bytes are packed.
    pub encoding: Encoding,
    /// What a memoized entry stands for.
    pub kind: EntryKind,
    /// For a memoized value that is stored beside one of another shape: the version of that one, the
    /// base entry. The value may be used only while the base entry has this version.
    pub base: Option<Version>,
    tags: Vec<String>,
}

/// A tag that cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// It has no bytes, or more than [`TAG_BYTES_MAX`].
    #[error("a tag has 1 to {TAG_BYTES_MAX} bytes")]
    Length,
    /// There are more than [`TAGS_MAX`], or they do not fit into the entry's metadata together.
    #[error("an entry has at most {TAGS_MAX} tags, of {METADATA_BYTES_MAX} bytes together")]
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
}

/// Bytes that all fields but the tags take at most: three times of up to 8, two numbers of 3, and a
/// version of 18.
const FIXED_BYTES_MAX: usize = 60;

impl Metadata {
    /// Names a group to which the entry belongs; the same name twice counts once.
    ///
    /// # Errors
    /// [`TagError`] when the tag is empty or too long, or one too many.
    pub fn add_tag(&mut self, name: impl Into<String>) -> Result<(), TagError> {
        let name = name.into();
        if name.is_empty() || name.len() > TAG_BYTES_MAX {
            return Err(TagError::Length);
        }
        if self.tags.contains(&name) {
            return Ok(());
        }
        let bytes: usize = self.tags.iter().map(|tag| tag.len() + 4).sum();
        let fits = FIXED_BYTES_MAX + bytes + name.len() + 4 <= METADATA_BYTES_MAX;
        if self.tags.len() >= TAGS_MAX || !fits {
            return Err(TagError::TooMany);
        }
        self.tags.push(name);
        Ok(())
    }

    /// The groups to which the entry belongs, in the order in which they were named.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// How long an entry is kept after its fresh time, in milliseconds.
    #[must_use]
    pub fn stale_ms(&self) -> u64 {
        self.stale_while_ms.max(self.stale_if_error_ms)
    }

    /// The whole life of an entry that is fresh for `fresh`: with the longer of its stale times.
    ///
    /// # Errors
    /// When it is above [`Ttl::MAX`].
    pub fn life(&self, fresh: Ttl) -> Result<Ttl, InvalidTtl> {
        Ttl::from_millis(fresh.as_millis().saturating_add(self.stale_ms()))
    }

    /// Shortens the stale times of an entry that is fresh for `fresh` as far as its life has to be within
    /// [`Ttl::MAX`], and returns that life. Off the life it would shorten the fresh time, which is what
    /// remains when the stale times are over.
    pub fn shorten_stale(&mut self, fresh: Ttl) -> Ttl {
        let most_ms = Ttl::MAX.as_millis() - fresh.as_millis();
        self.stale_while_ms = self.stale_while_ms.min(most_ms);
        self.stale_if_error_ms = self.stale_if_error_ms.min(most_ms);
        self.life(fresh).unwrap_or(Ttl::MAX)
    }

    /// How an entry may be used that has `remaining_ms` of its life left.
    #[must_use]
    pub fn freshness(&self, remaining_ms: u64) -> Freshness {
        if self.fresh_ms(remaining_ms) > 0 {
            return Freshness::Fresh;
        }
        let past_ms = self.stale_ms() - remaining_ms;
        if past_ms < self.stale_while_ms { Freshness::Stale } else { Freshness::OnlyOnError }
    }

    /// What is left of the fresh time of an entry that has `remaining_ms` of its life left, in
    /// milliseconds; 0 when it is past it.
    #[must_use]
    pub fn fresh_ms(&self, remaining_ms: u64) -> u64 {
        remaining_ms.saturating_sub(self.stale_ms())
    }

    /// The section as it is stored; no bytes when it says nothing.
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
        ] {
            if number > 0 {
                out.number(tag, number);
            }
        }
        self.tags.iter().for_each(|name| out.bytes(tag::TAG, name.as_bytes()));
        if let Some(base) = self.base {
            out.bytes(tag::BASE, &base.to_bytes());
        }
        bytes.freeze()
    }

    /// The section in `bytes`. Fields of later releases are skipped.
    ///
    /// # Errors
    /// [`DecodeError`] when it is damaged, or the value is packed in a way that this release does not
    /// know; the entry is of no use then.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut metadata = Self::default();
        if bytes.is_empty() {
            return Ok(metadata);
        }
        Reader::new(bytes).each(|field| metadata.take(&field))?;
        Ok(metadata)
    }

    fn take(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let span =
            |field: &Field<'_>| Ok::<_, DecodeError>(field.number()?.min(Ttl::MAX.as_millis()));
        match field.tag {
            tag::STALE_WHILE_MS => self.stale_while_ms = span(field)?,
            tag::STALE_IF_ERROR_MS => self.stale_if_error_ms = span(field)?,
            tag::REFRESH_AHEAD_MS => self.refresh_ahead_ms = span(field)?,
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
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Incarnation;

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
        metadata
    }

    #[test]
    fn is_read_as_it_was_written() {
        assert_eq!(Metadata::decode(&full().encode()), Ok(full()));
        assert_eq!(Metadata::default().encode(), Bytes::new());
        assert_eq!(Metadata::decode(&Bytes::new()), Ok(Metadata::default()));
    }

    #[test]
    fn its_bytes_are_pinned() {
        let expected = b"\x01\x02\xd0\x0f\x02\x02\x88\x27\x03\x02\xac\x02\x04\x01\x01\x05\x01\x01\
                         \x06\x05users\x06\x06user:7\
                         \x07\x10\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03";
        assert_eq!(full().encode().as_ref(), &expected[..]);
    }

    #[test]
    fn what_this_release_does_not_know_is_skipped_or_makes_the_entry_useless() {
        let later = Bytes::from_static(b"\x63\x01\x00\x01\x01\x05");
        assert_eq!(Metadata::decode(&later).unwrap().stale_while_ms, 5);
        for useless in [
            &b"\x04\x01\x09"[..],
            b"\x05\x01\x09",
            b"\x06\x00",
            b"\x01\x05\x01",
            b"\x06",
            b"\x07\x02\x01\x02",
        ] {
            assert!(Metadata::decode(&Bytes::copy_from_slice(useless)).is_err(), "{useless:?}");
        }
    }

    #[test]
    fn tags_are_bounded() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.add_tag(""), Err(TagError::Length));
        assert_eq!(metadata.add_tag("x".repeat(TAG_BYTES_MAX + 1)), Err(TagError::Length));
        for n in 0..7 {
            metadata.add_tag("x".repeat(TAG_BYTES_MAX - n)).unwrap();
        }
        metadata.add_tag("x".repeat(TAG_BYTES_MAX)).unwrap();
        assert_eq!(metadata.tags().len(), 7);
        assert_eq!(metadata.add_tag("y".repeat(TAG_BYTES_MAX)), Err(TagError::TooMany));
        // With the largest of all other fields.
        metadata.stale_while_ms = Ttl::MAX.as_millis();
        (metadata.stale_if_error_ms, metadata.refresh_ahead_ms) =
            (metadata.stale_while_ms, metadata.stale_while_ms);
        (metadata.encoding, metadata.kind) = (Encoding::Lz4, EntryKind::Error);
        metadata.base = Some(Version::from_bytes([0xff; 16]));
        let tags: usize = metadata.tags().iter().map(|tag| tag.len() + 4).sum();
        assert!(metadata.encode().len() <= FIXED_BYTES_MAX + tags);
        assert!(metadata.encode().len() <= METADATA_BYTES_MAX);
        let mut metadata = Metadata::default();
        for n in 0..TAGS_MAX {
            metadata.add_tag(alloc::format!("{n}")).unwrap();
        }
        assert_eq!(metadata.add_tag("one more"), Err(TagError::TooMany));
    }

    #[test]
    fn age_follows_from_what_remains() {
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
    fn stale_times_without_end_leave_the_fresh_time_as_it_is() {
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
