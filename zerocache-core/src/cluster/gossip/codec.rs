//! The gossip in one heartbeat, as bytes.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    version::Incarnation,
    wire::{
        NodeInfo, Writer,
        field::{DecodeError, Reader},
    },
};

/// The most rows of one message: more do not fit into a datagram.
const ROWS_MAX: usize = 256;

/// The most short hashes in one request.
const HAVE_MAX: usize = 1_024;

mod tag {
    pub(super) const DIGEST: u32 = 1;
    pub(super) const WANT: u32 = 2;
    pub(super) const ROW: u32 = 3;

    pub(super) const ID: u32 = 1;
    pub(super) const REGION: u32 = 2;
    pub(super) const RENEWAL: u32 = 16;
    pub(super) const AGE_S: u32 = 17;
    pub(super) const GONE: u32 = 18;
}

/// A row as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GossipRow {
    pub(super) id: Incarnation,
    /// The node; `None` where the receiver probably knows it.
    pub(super) info: Option<NodeInfo>,
    /// How often the node has renewed its row.
    pub(super) renewal: u64,
    /// How long ago that was, in milliseconds; sent in seconds.
    pub(super) age_ms: u64,
    pub(super) gone: bool,
}

impl GossipRow {
    fn write(&self, out: &mut Writer<'_>) {
        match &self.info {
            Some(info) => info.write(out),
            None => out.number(tag::ID, self.id.0),
        }
        out.number(tag::RENEWAL, self.renewal);
        if self.age_ms > 0 {
            out.number(tag::AGE_S, self.age_ms.div_ceil(1_000));
        }
        if self.gone {
            out.number(tag::GONE, 1);
        }
    }

    fn read(reader: &Reader<'_>) -> Result<Self, DecodeError> {
        let (mut id, mut has_info) = (None, false);
        let (mut renewal, mut age_s, mut gone) = (0, 0, false);
        reader.clone().each(|field| {
            match field.tag {
                tag::ID => id = Some(Incarnation(field.number()?)),
                tag::REGION => has_info = true,
                tag::RENEWAL => renewal = field.number()?,
                tag::AGE_S => age_s = field.number()?,
                tag::GONE => gone = field.number()? != 0,
                _ => {}
            }
            Ok(())
        })?;
        let id = id.ok_or(DecodeError::Missing(tag::ID))?;
        let info = if has_info { Some(NodeInfo::read(reader.clone())?) } else { None };
        Ok(Self { id, info, renewal, age_ms: age_s.saturating_mul(1_000), gone })
    }

    /// The bytes that the row takes in a message.
    pub(super) fn bytes(&self) -> usize {
        Writer::count(|out| out.nested(tag::ROW, |out| self.write(out)))
    }
}

/// A request for one bucket of the receiver's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketRequest {
    /// The bucket has the rows whose hash ends in so many bits ..
    pub(super) bits: u8,
    /// .. with this value.
    pub(super) bucket: u16,
    /// The higher halves of the hashes of the rows known in the bucket.
    pub(super) have: Vec<u32>,
}

impl BucketRequest {
    /// Whether a hash belongs to the bucket.
    pub(super) const fn covers(&self, hash: u64) -> bool {
        hash & ((1 << self.bits) - 1) == self.bucket as u64
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(3 + self.have.len() * 4);
        out.put_u8(self.bits);
        out.put_u16(self.bucket);
        self.have.iter().take(HAVE_MAX).for_each(|hash| out.put_u32(*hash));
        out
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (&[bits, high, low], have) = content.split_first_chunk()?;
        let (have, rest) = have.as_chunks();
        let fits = rest.is_empty() && have.len() <= HAVE_MAX && bits <= 16;
        let have = have.iter().map(|four| u32::from_be_bytes(*four)).collect();
        fits.then_some(Self { bits, bucket: u16::from_be_bytes([high, low]), have })
    }
}

/// The gossip in one heartbeat or echo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GossipMessage {
    /// The digest over all nodes that the sender knows.
    pub(super) digest: u64,
    pub(super) request: Option<BucketRequest>,
    pub(super) rows: Vec<GossipRow>,
}

impl GossipMessage {
    fn write(&self, out: &mut Writer<'_>) {
        out.bytes(tag::DIGEST, &self.digest.to_be_bytes());
        if let Some(request) = &self.request {
            out.bytes(tag::WANT, &request.encode());
        }
        for row in &self.rows {
            out.nested(tag::ROW, |out| row.write(out));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        Writer::count(|out| self.write(out))
    }

    /// Adds rows as long as the message has at most `bytes_max` bytes. Returns its bytes, if all fitted.
    pub(super) fn fill(&mut self, rows: Vec<GossipRow>, bytes_max: usize) -> Option<usize> {
        let mut bytes = self.bytes();
        for row in rows {
            bytes += row.bytes();
            if bytes > bytes_max {
                return None;
            }
            self.rows.push(row);
        }
        Some(bytes)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes());
        self.write(&mut Writer::new(&mut out));
        out.freeze()
    }

    pub(super) fn decode(content: &Bytes) -> Result<Self, DecodeError> {
        let (mut digest, mut request, mut rows) = (None, None, Vec::new());
        Reader::new(content).each(|field| {
            match field.tag {
                tag::DIGEST => digest = Some(u64::from_be_bytes(field.array()?)),
                tag::WANT => {
                    request =
                        Some(BucketRequest::decode(field.content).ok_or_else(|| field.invalid())?);
                }
                tag::ROW if rows.len() < ROWS_MAX => rows.push(GossipRow::read(&field.reader())?),
                tag::ROW => return Err(DecodeError::TooMany(field.tag)),
                _ => {}
            }
            Ok(())
        })?;
        let digest = digest.ok_or(DecodeError::Missing(tag::DIGEST))?;
        Ok(Self { digest, request, rows })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::wire::NodeState;

    fn content() -> GossipMessage {
        let info = NodeInfo {
            incarnation: Incarnation(7),
            region: "oslo".into(),
            zone: None,
            addresses: vec!["10.0.0.1:6789".parse().unwrap()],
            state: NodeState::InSync,
            bytes_max: 1 << 30,
            name: None,
            replicas: crate::cluster::Replicas::All,
        };
        let row =
            GossipRow { id: Incarnation(7), info: Some(info), renewal: 3, age_ms: 0, gone: false };
        let gone =
            GossipRow { id: Incarnation(8), info: None, renewal: 1, age_ms: 60_000, gone: true };
        let request = BucketRequest { bits: 3, bucket: 5, have: vec![1, u32::MAX] };
        GossipMessage { digest: 0x0102, request: Some(request), rows: vec![row, gone] }
    }

    #[test]
    fn messages_survive_encoding_and_have_the_announced_length() {
        for content in [content(), GossipMessage::default()] {
            let bytes = content.encode();
            assert_eq!(bytes.len(), content.bytes());
            assert_eq!(GossipMessage::decode(&bytes), Ok(content));
        }
        let one = GossipMessage { request: None, ..content() };
        let none = GossipMessage { rows: Vec::new(), ..one.clone() };
        assert_eq!(
            one.bytes(),
            none.bytes() + one.rows.iter().map(GossipRow::bytes).sum::<usize>()
        );
    }

    #[test]
    fn truncations_and_invalid_requests_are_refused() {
        let bytes = content().encode();
        let whole =
            (1..bytes.len()).filter(|end| GossipMessage::decode(&bytes.slice(..*end)).is_ok());
        // Only where a field ends: after the digest, the request and the first row.
        assert_eq!(whole.count(), 3);
        for bad in [&[][..], &[17, 0, 0], &[0, 0, 0, 1]] {
            assert_eq!(BucketRequest::decode(bad), None);
        }
    }
}
