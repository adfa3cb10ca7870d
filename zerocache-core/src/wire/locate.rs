//! What nodes hold of keys, as a response to a request for their copies.

use alloc::vec::Vec;

use super::{
    field::{DecodeError, Field, Reader, Writer},
    hello::NodeInfo,
};
use crate::{
    locate::{CopyState, KeyCopy, LOCATED_KEYS_MAX, NodeCopies, Reply, Spread},
    ttl::Ttl,
    version::Version,
};

/// The most nodes of one response.
pub(super) const NODES_MAX: usize = 4_096;

/// The encoded size of a copy at most, in bytes.
pub(super) const COPY_BYTES: usize = 64;

mod tag {
    pub(super) const NODE: u32 = 1;
    pub(super) const REPLY: u32 = 2;
    pub(super) const COPY: u32 = 3;

    pub(super) const STATE: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const REMAINING_MS: u32 = 3;
    pub(super) const BYTES: u32 = 4;
    pub(super) const DIGEST: u32 = 5;
    pub(super) const PURGED: u32 = 6;
    pub(super) const FRESH_MS: u32 = 7;
    pub(super) const WITNESS: u32 = 8;
}

impl Spread {
    pub(super) const fn to_number(self) -> u64 {
        match self {
            Self::Node => 0,
            Self::Region => 1,
            Self::Cluster => 2,
        }
    }

    pub(super) fn from_field(field: &Field<'_>) -> Result<Self, DecodeError> {
        match field.number()? {
            0 => Ok(Self::Node),
            1 => Ok(Self::Region),
            2 => Ok(Self::Cluster),
            _ => Err(field.invalid()),
        }
    }
}

impl NodeCopies {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.nested(tag::NODE, |out| self.node.write(out));
        out.number(
            tag::REPLY,
            match self.reply {
                Reply::Answered => 0,
                Reply::Unreachable => 1,
                Reply::Unsupported => 2,
            },
        );
        for copy in &self.copies {
            out.nested(tag::COPY, |out| copy.write(out));
        }
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut node, mut reply, mut copies) = (None, Reply::Answered, Vec::new());
        reader.each(|field| {
            match field.tag {
                tag::NODE => node = Some(NodeInfo::read(field.reader())?),
                tag::REPLY => {
                    reply = match field.number()? {
                        0 => Reply::Answered,
                        2 => Reply::Unsupported,
                        _ => Reply::Unreachable,
                    }
                }
                tag::COPY if copies.len() < LOCATED_KEYS_MAX => {
                    copies.push(KeyCopy::read(field.reader())?);
                }
                tag::COPY => return Err(DecodeError::TooMany(field.tag)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self { node: node.ok_or(DecodeError::Missing(tag::NODE))?, reply, copies })
    }
}

impl KeyCopy {
    fn write(&self, out: &mut Writer<'_>) {
        out.number(
            tag::STATE,
            match self.state {
                CopyState::Nothing => 0,
                CopyState::Tombstone => 1,
                CopyState::Value => 2,
            },
        );
        if let Some(version) = self.version {
            out.bytes(tag::VERSION, &version.to_bytes());
        }
        if self.state == CopyState::Value {
            out.number(tag::REMAINING_MS, self.remaining_ms);
            out.number(tag::BYTES, self.bytes);
            if self.fresh_ms != self.remaining_ms {
                out.number(tag::FRESH_MS, self.fresh_ms);
            }
        }
        if let Some(digest) = self.digest {
            out.bytes(tag::DIGEST, &digest.to_be_bytes());
        }
        if self.is_purged {
            out.number(tag::PURGED, 1);
        }
        if self.is_witness {
            out.number(tag::WITNESS, 1);
        }
    }

    fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut copy, mut fresh_ms) = (Self::default(), None);
        reader.each(|field| {
            match field.tag {
                tag::STATE => {
                    copy.state = match field.number()? {
                        0 => CopyState::Nothing,
                        1 => CopyState::Tombstone,
                        2 => CopyState::Value,
                        _ => return Err(field.invalid()),
                    }
                }
                tag::VERSION => copy.version = Some(Version::from_bytes(field.array()?)),
                tag::REMAINING_MS => {
                    copy.remaining_ms = field.number()?.min(Ttl::MAX.as_millis());
                }
                tag::BYTES => copy.bytes = field.number()?,
                tag::DIGEST => copy.digest = Some(u128::from_be_bytes(field.array()?)),
                tag::PURGED => copy.is_purged = field.number()? != 0,
                tag::WITNESS => copy.is_witness = field.number()? != 0,
                tag::FRESH_MS => fresh_ms = Some(field.number()?),
                _ => {}
            }
            Ok(())
        })?;
        copy.fresh_ms = fresh_ms.unwrap_or(copy.remaining_ms).min(copy.remaining_ms);
        Ok(copy)
    }
}
