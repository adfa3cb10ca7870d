//! The bytes of a segment: records, and the footer that lists them.
//!
//! Integers are little-endian, versions big-endian as everywhere. A checksum is CRC-32 (IEEE). That of a head starts
//! from the salt of the segment, so that bytes which a caller stored as a value do not pass for a record.
//!
//! | record | head | body |
//! |---|---|---|
//! | any | checksum of the rest of the head (4), magic (2), kind (1), of an erase 1 if it leaves no tombstone, else 0 (1), then | |
//! | value | hash (16), version (16), expiry (8), value bytes (4), key bytes (4), metadata bytes (4), checksum of the body (4) | key, metadata, value |
//! | erase | hash (16), version (16) | |
//! | note | content bytes (4), checksum of the body (4) | content |
//!
//! A footer is, for each record, its offset (4) and its bytes without the value, with another magic so that they do not
//! pass for the record; then the trailer: where records
//! end (4), bytes of the list (4), its checksum with that of both numbers (4), magic (4).

use zerocache_core::{key::KeyHash, version::Version};

/// The first bytes of a record, after its checksum.
const MAGIC: [u8; 2] = *b"ZR";
/// The same in the list of a footer.
const LISTED_MAGIC: [u8; 2] = *b"ZL";
/// The last bytes of a footer.
const TRAILER_MAGIC: [u8; 4] = *b"ZCF1";
const VALUE: u8 = 1;
const ERASE: u8 = 2;
const NOTE: u8 = 3;

/// The bytes of a value's head, the longest.
pub(crate) const VALUE_HEAD: usize = 64;
/// The bytes of an erase.
pub(crate) const ERASE_BYTES: usize = 40;
/// The bytes of a note before its content.
pub(crate) const NOTE_HEAD: usize = 16;
/// The bytes at the end of a footer.
pub(crate) const TRAILER: usize = 16;
/// The bytes that a footer has for a record besides those of the record.
pub(crate) const ENTRY_HEAD: usize = 4;

/// The location of a value's record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The number of the segment. Later segments have higher numbers.
    pub segment: u32,
    /// The first byte of the record in its segment.
    pub offset: u32,
    /// The bytes of the whole record.
    pub bytes: u32,
}

impl Address {
    /// Encodes the address in 12 bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 12] {
        let mut all = [0; 12];
        all[..4].copy_from_slice(&self.segment.to_le_bytes());
        all[4..8].copy_from_slice(&self.offset.to_le_bytes());
        all[8..].copy_from_slice(&self.bytes.to_le_bytes());
        all
    }

    /// Decodes what [`encode`](Self::encode) returned.
    #[must_use]
    pub fn decode(bytes: [u8; 12]) -> Self {
        Self { segment: u32_at(&bytes, 0), offset: u32_at(&bytes, 4), bytes: u32_at(&bytes, 8) }
    }
}

/// The description of a value: everything but the value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The hash of the key.
    pub hash: KeyHash,
    /// The version of the value.
    pub version: Version,
    /// The end of its life by the wall clock, in milliseconds since the epoch. The log does not judge it.
    pub expires_ms: u64,
    /// The key.
    pub key: &'a [u8],
    /// The metadata section of the entry.
    pub metadata: &'a [u8],
    /// The length of the value. [`append_value`](crate::Log::append_value) ignores it and takes that of the value.
    pub value_bytes: u32,
}

/// A record without the bytes of its value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Record<'a> {
    Value { head: Head<'a>, body_crc: u32 },
    Erase { hash: KeyHash, version: Version, is_tombstone: bool },
    Note { content: &'a [u8] },
}

impl<'a> Record<'a> {
    /// What remains of the record when its value is lost: the values that it replaced are dead still.
    pub(crate) fn without_value(self) -> Option<Self> {
        let Self::Value { head, .. } = self else { return Some(self) };
        Some(Self::Erase { hash: head.hash, version: below(head.version)?, is_tombstone: false })
    }

    /// The bytes of the record without the value.
    pub(crate) fn prefix_bytes(&self) -> usize {
        match self {
            Self::Value { head, .. } => VALUE_HEAD + head.key.len() + head.metadata.len(),
            Self::Erase { .. } => ERASE_BYTES,
            Self::Note { content } => NOTE_HEAD + content.len(),
        }
    }

    /// The bytes of the value.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Value { head, .. } => head.value_bytes as usize,
            Self::Erase { .. } | Self::Note { .. } => 0,
        }
    }

    /// The bytes of the whole record.
    pub(crate) fn bytes(&self) -> u64 {
        self.prefix_bytes() as u64 + self.value_bytes() as u64
    }

    /// The bytes that the record takes of a segment, with its entry in the footer.
    pub(crate) fn cost(&self) -> u64 {
        self.bytes() + (ENTRY_HEAD + self.prefix_bytes()) as u64
    }

    /// Appends the record without its value to `out`.
    pub(crate) fn encode(&self, salt: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let mut head_bytes = VALUE_HEAD;
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&MAGIC);
        match self {
            Self::Value { head, body_crc } => {
                out.extend_from_slice(&[VALUE, 0]);
                out.extend_from_slice(&head.hash.0.to_le_bytes());
                out.extend_from_slice(&head.version.to_bytes());
                out.extend_from_slice(&head.expires_ms.to_le_bytes());
                out.extend_from_slice(&head.value_bytes.to_le_bytes());
                out.extend_from_slice(&(head.key.len() as u32).to_le_bytes());
                out.extend_from_slice(&(head.metadata.len() as u32).to_le_bytes());
                out.extend_from_slice(&body_crc.to_le_bytes());
                out.extend_from_slice(head.key);
                out.extend_from_slice(head.metadata);
            }
            Self::Erase { hash, version, is_tombstone } => {
                out.extend_from_slice(&[ERASE, u8::from(!is_tombstone)]);
                out.extend_from_slice(&hash.0.to_le_bytes());
                out.extend_from_slice(&version.to_bytes());
                head_bytes = ERASE_BYTES;
            }
            Self::Note { content } => {
                out.extend_from_slice(&[NOTE, 0]);
                out.extend_from_slice(&(content.len() as u32).to_le_bytes());
                out.extend_from_slice(&checksum(0, content).to_le_bytes());
                out.extend_from_slice(content);
                head_bytes = NOTE_HEAD;
            }
        }
        let crc = checksum(salt, &out[start + 4..start + head_bytes]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at the start of `bytes`, whose head was checked.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let all = bytes.get(..lengths(bytes)?.0)?;
        Some(match all[6] {
            VALUE => {
                let (key, metadata) = all[VALUE_HEAD..].split_at(u32_at(all, 52) as usize);
                let head = Head {
                    hash: KeyHash(u128::from_le_bytes(array(all, 8))),
                    version: Version::from_bytes(array(all, 24)),
                    expires_ms: u64::from_le_bytes(array(all, 40)),
                    key,
                    metadata,
                    value_bytes: u32_at(all, 48),
                };
                Self::Value { head, body_crc: u32_at(all, 60) }
            }
            ERASE => Self::Erase {
                hash: KeyHash(u128::from_le_bytes(array(all, 8))),
                version: Version::from_bytes(array(all, 24)),
                is_tombstone: all[7] == 0,
            },
            _ => Self::Note { content: &all[NOTE_HEAD..] },
        })
    }
}

/// The bytes of a record without its value, and of its value, by a head that was checked.
#[inline]
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.get(..head_bytes(bytes)?)?;
    Some(match head[6] {
        VALUE => {
            let key_and_metadata =
                (u32_at(head, 52) as usize).checked_add(u32_at(head, 56) as usize)?;
            (VALUE_HEAD.checked_add(key_and_metadata)?, u32_at(head, 48) as usize)
        }
        ERASE => (ERASE_BYTES, 0),
        _ => (NOTE_HEAD.checked_add(u32_at(head, 8) as usize)?, 0),
    })
}

/// The bytes of the head at the start of `bytes`, if it looks like one.
#[inline]
fn head_bytes(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(6)? {
        VALUE => Some(VALUE_HEAD),
        ERASE => Some(ERASE_BYTES),
        NOTE => Some(NOTE_HEAD),
        _ => None,
    }
}

/// The bytes of the whole record whose head is at the start of `bytes`. `None` if there is no undamaged head.
pub(crate) fn check_head(bytes: &[u8], salt: u32) -> Option<usize> {
    let head = bytes.get(..head_bytes(bytes)?)?;
    if head[4..6] != MAGIC || checksum(salt, &head[4..]) != u32_at(head, 0) {
        return None;
    }
    let (prefix, value) = lengths(head)?;
    prefix.checked_add(value)
}

/// Checks the body of the whole record `bytes`, whose head was checked.
pub(crate) fn check_body(bytes: &[u8]) -> bool {
    match bytes[6] {
        VALUE => checksum(0, &bytes[VALUE_HEAD..]) == u32_at(bytes, 60),
        NOTE => checksum(0, &bytes[NOTE_HEAD..]) == u32_at(bytes, 12),
        _ => true,
    }
}

/// The checksum of the body of a value's record.
pub(crate) fn body_checksum(head: &Head<'_>, value: &[u8]) -> u32 {
    checksum(checksum(checksum(0, head.key), head.metadata), value)
}

/// Appends a record, which is at `offset`, to the list of a footer: its bytes without the value.
pub(crate) fn push_entry(list: &mut Vec<u8>, offset: u32, prefix: &[u8]) {
    list.extend_from_slice(&offset.to_le_bytes());
    let start = list.len();
    list.extend_from_slice(prefix);
    list[start + 4..start + 6].copy_from_slice(&LISTED_MAGIC);
}

/// The records of a footer's list, with their offsets.
pub(crate) struct Entries<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (u32, Record<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let offset = u32::from_le_bytes(*self.0.first_chunk()?);
        let record = Record::parse(&self.0[ENTRY_HEAD..])?;
        self.0 = &self.0[ENTRY_HEAD + record.prefix_bytes()..];
        Some((offset, record))
    }
}

/// Returns the end of a footer whose list is `list`.
pub(crate) fn trailer(salt: u32, records_end: u32, list: &[u8]) -> [u8; TRAILER] {
    let mut all = [0; TRAILER];
    all[..4].copy_from_slice(&records_end.to_le_bytes());
    all[4..8].copy_from_slice(&(list.len() as u32).to_le_bytes());
    let crc = checksum(checksum(salt, &all[..8]), list);
    all[8..12].copy_from_slice(&crc.to_le_bytes());
    all[12..].copy_from_slice(&TRAILER_MAGIC);
    all
}

/// The lengths in a trailer: where records end, and the bytes of the list. `None` if it is not one, or does not fit
/// into a segment of `len` bytes.
pub(crate) fn trailer_lengths(trailer: &[u8; TRAILER], len: u64) -> Option<(u64, usize)> {
    let (end, list) = (u32_at(trailer, 0), u32_at(trailer, 4));
    let fits = u64::from(end) + u64::from(list) + TRAILER as u64 == len;
    (trailer[12..] == TRAILER_MAGIC && fits).then_some((u64::from(end), list as usize))
}

/// The highest version below `version`.
fn below(version: Version) -> Option<Version> {
    let number = u128::from_be_bytes(version.to_bytes());
    Some(Version::from_bytes(number.checked_sub(1)?.to_be_bytes()))
}

/// The checksum of `bytes`, from `salt` on.
pub(crate) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut all = [0; N];
    all.copy_from_slice(&bytes[at..at + N]);
    all
}
