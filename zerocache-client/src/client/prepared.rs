//! What is to be written, with what is said of it, before it is sent.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::{
    compression,
    metadata::{Encoding, Metadata},
    ttl::Ttl,
    version::{Basis, Version, VersionSource},
    wire::Ack,
};

use zerocache_net::clock;

use super::{
    millis, valid,
    writes::{StoredValue, WriteRequest},
};
use crate::{
    Error,
    codec::{Codec, IntoValue},
    lifetime::Lifetime,
    near::UnstoredPermit,
};

/// What is to be written.
pub(super) struct Prepared {
    pub(super) key: Bytes,
    /// None for a delete.
    pub(super) value: Option<PreparedValue>,
}

/// A value to be written.
pub(super) struct PreparedValue {
    pub(super) bytes: Bytes,
    /// How long it is fresh.
    pub(super) fresh: Duration,
    pub(super) metadata: Metadata,
    pub(super) version: WriteVersion,
    /// The permission to keep it near if it cannot be stored.
    pub(super) unstored: Option<UnstoredPermit>,
}

/// What a value was computed from, as its process knows it. See [`Basis`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadPoint {
    /// The begin of the computation, on the process's clock.
    pub(crate) at: Duration,
    /// The highest stamp of a version that was in force then; 0 if none is known.
    pub(crate) known: u64,
}

/// A computed value that is to be written.
#[derive(Debug)]
pub(crate) struct ComputedPut {
    pub(crate) key: Bytes,
    pub(crate) bytes: Bytes,
    /// How long it is fresh.
    pub(crate) fresh: Duration,
    pub(crate) metadata: Metadata,
    /// What it was computed from; `None` to count it as of now.
    pub(crate) from: Option<ReadPoint>,
    /// The permission to keep it near if it cannot be stored.
    pub(crate) unstored: Option<UnstoredPermit>,
}

impl From<ComputedPut> for Prepared {
    fn from(put: ComputedPut) -> Self {
        let ComputedPut { key, bytes, fresh, metadata, from, unstored } = put;
        let version = from.map_or(WriteVersion::Accepted, WriteVersion::Computed);
        Self { key, value: Some(PreparedValue { bytes, fresh, metadata, version, unstored }) }
    }
}

/// Where the version of a value comes from: a [`VersionSource`] that has not been sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum WriteVersion {
    Accepted,
    Computed(ReadPoint),
    Given(Version),
}

impl WriteVersion {
    /// As it is sent now.
    pub(super) fn source(self) -> VersionSource {
        match self {
            Self::Accepted => VersionSource::Accepted,
            Self::Computed(ReadPoint { at, known }) => {
                // Whole milliseconds that have passed: a node adds them to its own whole milliseconds.
                let age_ms = millis(clock::elapsed().saturating_sub(at));
                VersionSource::Computed(Basis { age_ms, known })
            }
            Self::Given(version) => VersionSource::Given(version),
        }
    }
}

/// An option of a write.
pub(super) enum WriteOption {
    /// For how many milliseconds it may be served stale while somebody computes it again.
    StaleWhile(u64),
    /// For how many milliseconds it may be served stale where that fails.
    StaleIfError(u64),
    /// The groups to which it belongs.
    Tags(Vec<String>),
    /// Its media type.
    ContentType(String),
    /// The codings that were applied to it.
    ContentEncoding(String),
    /// Another place that has it.
    Origin(String),
}

impl WriteOption {
    pub(super) fn stale_while(time: impl Lifetime) -> Self {
        Self::StaleWhile(millis(time.into_duration()))
    }

    pub(super) fn stale_if_error(time: impl Lifetime) -> Self {
        Self::StaleIfError(millis(time.into_duration()))
    }

    pub(super) fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self::Tags(tags.into_iter().map(Into::into).collect())
    }
}

impl Prepared {
    pub(super) fn put(
        key: &[u8],
        value: impl IntoValue,
        fresh: Duration,
        codec: Codec,
    ) -> Result<Self, Error> {
        let (bytes, metadata) = (value.into_value_as(codec)?, Metadata::default());
        let value = PreparedValue {
            bytes,
            fresh,
            metadata,
            version: WriteVersion::Accepted,
            unstored: None,
        };
        Ok(Self { key: Bytes::copy_from_slice(key), value: Some(value) })
    }

    pub(super) fn delete(key: &[u8]) -> Self {
        Self { key: Bytes::copy_from_slice(key), value: None }
    }

    /// Sets an option of the value; for a delete options have no effect.
    pub(super) fn set(&mut self, option: &WriteOption) -> Result<(), Error> {
        let Some(PreparedValue { metadata, .. }) = &mut self.value else { return Ok(()) };
        match option {
            WriteOption::StaleWhile(time_ms) => metadata.stale_while_ms = *time_ms,
            WriteOption::StaleIfError(time_ms) => metadata.stale_if_error_ms = *time_ms,
            WriteOption::Tags(tags) => {
                tags.iter().try_for_each(|tag| metadata.add_tag(tag.as_str()))?
            }
            WriteOption::ContentType(text) => metadata.set_content_type(text)?,
            WriteOption::ContentEncoding(text) => metadata.set_content_encoding(text)?,
            WriteOption::Origin(url) => metadata.add_origin(url)?,
        }
        Ok(())
    }

    pub(super) fn request(
        self,
        ack: Ack,
        compress_above: Option<usize>,
    ) -> Result<WriteRequest, Error> {
        let key = valid(self.key)?;
        let value = self.value.map(|value| value.stored(compress_above)).transpose()?;
        Ok(WriteRequest { key, value, ack })
    }
}

impl PreparedValue {
    /// As nodes take it: packed if it is larger than `compress_above` bytes and becomes smaller, and with the
    /// life that its metadata give it.
    fn stored(self, compress_above: Option<usize>) -> Result<StoredValue, Error> {
        let Self { mut bytes, fresh, mut metadata, version, .. } = self;
        let life = metadata.life(Ttl::try_from(fresh)?)?;
        let is_large = compress_above.is_some_and(|above| bytes.len() > above);
        if is_large
            && metadata.encoding == Encoding::Plain
            && let Some(packed) = compression::compress(&bytes)
        {
            (bytes, metadata.encoding) = (packed, Encoding::Lz4);
        }
        Ok(StoredValue { value: bytes, metadata: metadata.encode(), life, version })
    }
}
