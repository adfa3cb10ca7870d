//! Reading values, from any thread.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use zerocache_core::{key::KeyHash, version::Version};

use crate::{
    directory::{Directory, SegmentFile},
    error::ReadError,
    format::{Address, ERASE_BYTES, Record, check_body, check_head},
    segments::Shared,
};

/// Reads values of a log while it is written. Clones share their files with it.
pub struct Reader<D: Directory> {
    segments: Shared<D::File>,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// The key.
    pub key: Bytes,
    /// The metadata section of the entry.
    pub metadata: Bytes,
    /// The value. It shares its memory with the key and the metadata.
    pub value: Bytes,
    /// The end of its life by the wall clock, in milliseconds since the epoch.
    pub expires_ms: u64,
}

impl<D: Directory> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self { segments: Arc::clone(&self.segments) }
    }
}

impl<D: Directory> Reader<D> {
    pub(crate) fn new(segments: Shared<D::File>) -> Self {
        Self { segments }
    }

    /// Reads the value at `address`, in one piece, and checks that it is whole and the one of this hash and version.
    ///
    /// Values are found after the [`flush`](crate::Log::flush) that follows their append, and until
    /// [`moved`](crate::Judge::moved) says otherwise.
    ///
    /// # Errors
    /// [`Gone`](ReadError::Gone) if the segment was removed meanwhile, [`Corrupt`](ReadError::Corrupt) if the value
    /// is damaged, otherwise that of the file system.
    pub fn read(
        &self,
        address: Address,
        hash: KeyHash,
        version: Version,
    ) -> Result<ReadRecord, ReadError> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let handle = segments.get(&address.segment).map(Arc::clone).ok_or(ReadError::Gone)?;
        drop(segments);
        if (address.bytes as usize) < ERASE_BYTES {
            return Err(ReadError::Corrupt);
        }
        let mut all = vec![0; address.bytes as usize];
        handle.file.read_at(&mut all, u64::from(address.offset)).map_err(|error| {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => ReadError::Corrupt,
                _ => ReadError::Io(error),
            }
        })?;
        if check_head(&all, handle.salt) != Some(all.len()) || !check_body(&all) {
            return Err(ReadError::Corrupt);
        }
        let all = Bytes::from(all);
        match Record::parse(&all) {
            Some(Record::Value { head, .. }) if (head.hash, head.version) == (hash, version) => {
                Ok(ReadRecord {
                    key: all.slice_ref(head.key),
                    metadata: all.slice_ref(head.metadata),
                    value: all.slice(all.len() - head.value_bytes as usize..),
                    expires_ms: head.expires_ms,
                })
            }
            _ => Err(ReadError::Corrupt),
        }
    }
}
