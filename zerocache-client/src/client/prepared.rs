//! What is to be written, with what is said of it, before it is sent.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::{
    compression,
    metadata::{Encoding, Metadata},
    ttl::Ttl,
    version::Version,
    wire::Ack,
};

use super::{
    millis, valid,
    writes::{Stored, WriteRequest},
};
use crate::{Error, codec::IntoValue, lifetime::Lifetime};

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
    pub(super) token: Option<Version>,
}

/// What a writer can say of a value.
pub(super) enum Say {
    /// For how many milliseconds it may be served stale while somebody computes it anew.
    StaleWhile(u64),
    /// For how many milliseconds it may be served stale where that fails.
    StaleIfError(u64),
    /// The groups to which it belongs.
    Tags(Vec<String>),
}

impl Say {
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
    pub(super) fn put(key: &[u8], value: impl IntoValue, fresh: Duration) -> Result<Self, Error> {
        let (bytes, metadata) = (value.into_value()?, Metadata::default());
        let value = PreparedValue { bytes, fresh, metadata, token: None };
        Ok(Self { key: Bytes::copy_from_slice(key), value: Some(value) })
    }

    pub(super) fn delete(key: &[u8]) -> Self {
        Self { key: Bytes::copy_from_slice(key), value: None }
    }

    /// Says something of the value; of a delete there is nothing to be said.
    pub(super) fn say(&mut self, say: &Say) -> Result<(), Error> {
        let Some(PreparedValue { metadata, .. }) = &mut self.value else { return Ok(()) };
        match say {
            Say::StaleWhile(time_ms) => metadata.stale_while_ms = *time_ms,
            Say::StaleIfError(time_ms) => metadata.stale_if_error_ms = *time_ms,
            Say::Tags(tags) => tags.iter().try_for_each(|tag| metadata.add_tag(tag.as_str()))?,
        }
        Ok(())
    }

    pub(super) fn request(
        self,
        ack: Ack,
        pack_above: Option<usize>,
    ) -> Result<WriteRequest, Error> {
        let key = valid(self.key)?;
        let value = self.value.map(|value| value.stored(pack_above)).transpose()?;
        Ok(WriteRequest { key, value, ack })
    }
}

impl PreparedValue {
    /// As nodes take it: packed if it is larger than `pack_above` bytes and becomes smaller, and with the
    /// life that its metadata give it.
    fn stored(self, pack_above: Option<usize>) -> Result<Stored, Error> {
        let Self { mut bytes, fresh, mut metadata, token } = self;
        let life = metadata.life(Ttl::try_from(fresh)?)?;
        let is_large = pack_above.is_some_and(|above| bytes.len() > above);
        if is_large
            && metadata.encoding == Encoding::Plain
            && let Some(packed) = compression::compress(&bytes)
        {
            (bytes, metadata.encoding) = (packed, Encoding::Lz4);
        }
        Ok(Stored { value: bytes, metadata: metadata.encode(), life, token })
    }
}
