//! What one heartbeat carries of the gossip, as bytes.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    version::Incarnation,
    wire::{
        NodeInfo, Writer,
        field::{DecodeError, Reader},
    },
};

/// Most rows that are taken from one content: more do not fit into a datagram.
const ROWS_MAX: usize = 256;

/// Most short hashes in one question.
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

/// A row as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: Incarnation,
    /// Who it is; none where the receiver probably knows.
    pub(super) info: Option<NodeInfo>,
    /// How often the node has renewed its row.
    pub(super) renewal: u64,
    /// How long ago that was, in milliseconds; travels in seconds.
    pub(super) age_ms: u64,
    pub(super) gone: bool,
}

impl Row {
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

    /// What it takes in a content.
    pub(super) fn bytes(&self) -> usize {
        Writer::count(|out| out.nested(tag::ROW, |out| self.write(out)))
    }
}

/// Asks for one part of the other's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// The part is of those whose hash ends in these bits ..
    pub(super) bits: u8,
    /// .. with this value.
    pub(super) part: u16,
    /// The higher halves of the hashes of what is known there.
    pub(super) have: Vec<u32>,
}

impl Want {
    /// Whether a hash belongs to the part.
    pub(super) const fn covers(&self, hash: u64) -> bool {
        hash & ((1 << self.bits) - 1) == self.part as u64
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(3 + self.have.len() * 4);
        out.put_u8(self.bits);
        out.put_u16(self.part);
        self.have.iter().take(HAVE_MAX).for_each(|hash| out.put_u32(*hash));
        out
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (&[bits, high, low], have) = content.split_first_chunk()?;
        let (have, rest) = have.as_chunks();
        let fits = rest.is_empty() && have.len() <= HAVE_MAX && bits <= 16;
        let have = have.iter().map(|four| u32::from_be_bytes(*four)).collect();
        fits.then_some(Self { bits, part: u16::from_be_bytes([high, low]), have })
    }
}

/// What one heartbeat or echo carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// A number for all nodes that the sender knows.
    pub(super) digest: u64,
    pub(super) want: Option<Want>,
    pub(super) rows: Vec<Row>,
}

impl Content {
    fn write(&self, out: &mut Writer<'_>) {
        out.bytes(tag::DIGEST, &self.digest.to_be_bytes());
        if let Some(want) = &self.want {
            out.bytes(tag::WANT, &want.encode());
        }
        for row in &self.rows {
            out.nested(tag::ROW, |out| row.write(out));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        Writer::count(|out| self.write(out))
    }

    /// Adds rows as long as the whole has at most `bytes_max` bytes; how many it has, if all fitted.
    pub(super) fn fill(&mut self, rows: Vec<Row>, bytes_max: usize) -> Option<usize> {
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
        let (mut digest, mut want, mut rows) = (None, None, Vec::new());
        Reader::new(content).each(|field| {
            match field.tag {
                tag::DIGEST => digest = Some(u64::from_be_bytes(field.array()?)),
                tag::WANT => {
                    want = Some(Want::decode(field.content).ok_or_else(|| field.invalid())?);
                }
                tag::ROW if rows.len() < ROWS_MAX => rows.push(Row::read(&field.reader())?),
                tag::ROW => return Err(DecodeError::TooMany(field.tag)),
                _ => {}
            }
            Ok(())
        })?;
        let digest = digest.ok_or(DecodeError::Missing(tag::DIGEST))?;
        Ok(Self { digest, want, rows })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::wire::NodeState;

    fn content() -> Content {
        let info = NodeInfo {
            incarnation: Incarnation(7),
            region: "oslo".into(),
            zone: None,
            addresses: vec!["10.0.0.1:6789".parse().unwrap()],
            state: NodeState::InSync,
            bytes_max: 1 << 30,
        };
        let row = Row { id: Incarnation(7), info: Some(info), renewal: 3, age_ms: 0, gone: false };
        let gone = Row { id: Incarnation(8), info: None, renewal: 1, age_ms: 60_000, gone: true };
        let want = Want { bits: 3, part: 5, have: vec![1, u32::MAX] };
        Content { digest: 0x0102, want: Some(want), rows: vec![row, gone] }
    }

    #[test]
    fn contents_survive_and_are_as_long_as_they_say() {
        for content in [content(), Content::default()] {
            let bytes = content.encode();
            assert_eq!(bytes.len(), content.bytes());
            assert_eq!(Content::decode(&bytes), Ok(content));
        }
        let one = Content { want: None, ..content() };
        let none = Content { rows: Vec::new(), ..one.clone() };
        assert_eq!(one.bytes(), none.bytes() + one.rows.iter().map(Row::bytes).sum::<usize>());
    }

    #[test]
    fn truncations_and_impossible_questions_are_refused() {
        let bytes = content().encode();
        let whole = (1..bytes.len()).filter(|end| Content::decode(&bytes.slice(..*end)).is_ok());
        // Only where a field ends: after the digest, the question and the first row.
        assert_eq!(whole.count(), 3);
        for bad in [&[][..], &[17, 0, 0], &[0, 0, 0, 1]] {
            assert_eq!(Want::decode(bad), None);
        }
    }
}
