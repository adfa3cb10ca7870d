//! What two nodes ask each other to find out where they differ, and to copy what one lacks.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    field::{DecodeError, Field, Reader, Writer},
    record::read_key,
};
use crate::{
    entry::{Change, Record},
    key::{KeyHash, PARTS},
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    store::{Known, Place, Row, Stretch},
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, Version},
};

/// Seconds of one block of sums; blocks begin at multiples of it.
pub const BLOCK_SECONDS: u64 = 64;

/// Most seconds that a window may span; a retention has 3,600, and clocks differ a little.
pub const WINDOW_SECONDS_MAX: u64 = 4_096;

/// Most blocks, seconds or cells that one request may name.
pub const PLACES_MAX: usize = 4_096;

/// Most keys that one request may name.
pub const KEYS_MAX: usize = 4_096;

/// One row as it is encoded: a key's hash and a version.
pub const ROW_BYTES: usize = 32;

/// Most rows of one response.
pub const ROWS_MAX: usize = 1 << 20;

/// Most records of one response.
pub const RECORDS_MAX: usize = 8_192;

/// Most incarnations of which a node says what it had of them.
pub const AGES_MAX: usize = 1_024;

/// Seconds of version, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first second since the Unix epoch.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

impl Window {
    /// The blocks that it touches, by number.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        self.from / BLOCK_SECONDS..=self.to / BLOCK_SECONDS
    }

    /// The part of it in a block.
    #[must_use]
    pub fn of_block(&self, block: u64) -> Self {
        let first = block.saturating_mul(BLOCK_SECONDS);
        let last = first.saturating_add(BLOCK_SECONDS - 1);
        Self { from: self.from.max(first), to: self.to.min(last) }
    }
}

/// One second of version in one part of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The second since the Unix epoch.
    pub second: u64,
    /// The part.
    pub part: u8,
}

/// Which sums are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One for each block of the window.
    Blocks,
    /// One for each second of these blocks that is in the window.
    Seconds(Vec<u64>),
    /// One for each part in these seconds.
    Parts(Vec<u64>),
}

/// How long ago a node last had everything that another one knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The other one.
    pub of: Incarnation,
    /// How long ago, in milliseconds.
    pub ms: u64,
    /// For how long the other one has lived by now, if it still does, in milliseconds.
    pub lived_ms: u64,
}

/// A line of knowledge: nodes that have copied from one another, back to one that started alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The node that started alone.
    pub of: Incarnation,
    /// For how long the line has been in sync, in milliseconds.
    pub ms: u64,
}

/// A record on its way to a node that asked for it: what remains of its life counts from its sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parcel {
    /// A value, and what remains of its life in milliseconds.
    Value {
        /// The record; its expiry is an instant of a clock that starts at 0 when it was sent.
        record: Record,
    },
    /// Only that there was this version.
    Trace(KeyHash, Version),
}

impl Parcel {
    /// What is known of a key, for sending at `now`.
    #[must_use]
    pub fn of(known: Known, now: Instant) -> Self {
        match known {
            Known::Trace(hash, version) => Self::Trace(hash, version),
            Known::Value(mut record) => {
                if let Change::Put { expires, .. } = &mut record.change {
                    *expires = Instant::from_millis(expires.since_ms(now));
                }
                Self::Value { record }
            }
        }
    }

    /// What is known of a key, as it was received at `now`.
    #[must_use]
    pub fn into_known(self, now: Instant) -> Known {
        match self {
            Self::Trace(hash, version) => Known::Trace(hash, version),
            Self::Value { mut record } => {
                if let Change::Put { expires, .. } = &mut record.change {
                    *expires = now.plus_ms(expires.as_millis());
                }
                Known::Value(record)
            }
        }
    }

    /// The bytes that it carries.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Value { record } => record.payload_bytes(),
            Self::Trace(..) => 16,
        }
    }

    /// Subtracts from what remains of its life that it came late.
    pub(super) fn age(&mut self, late_ms: u64) {
        if let Self::Value { record } = self
            && let Change::Put { expires, .. } = &mut record.change
        {
            *expires = expires.minus_ms(late_ms);
        }
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) {
        match self {
            Self::Trace(hash, version) => {
                out.bytes(tag::HASH, &hash.0.to_le_bytes());
                out.bytes(tag::VERSION, &version.to_bytes());
            }
            Self::Value { record } => {
                out.bytes(tag::KEY, record.key.as_bytes());
                out.bytes(tag::VERSION, &record.version.to_bytes());
                if let Change::Put { value, metadata, expires } = &record.change {
                    out.shared(tag::VALUE, value);
                    if !metadata.is_empty() {
                        out.bytes(tag::METADATA, metadata);
                    }
                    out.number(tag::REMAINING_MS, expires.as_millis());
                }
            }
        }
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut key, mut hash, mut version, mut value) = (None, None, None, None);
        let (mut metadata, mut remaining_ms) = (Bytes::new(), None);
        reader.each(|field| {
            match field.tag {
                tag::KEY => key = Some(read_key(&field)?),
                tag::HASH => hash = Some(KeyHash(u128::from_le_bytes(field.array()?))),
                tag::VERSION => version = Some(Version::from_bytes(field.array()?)),
                tag::VALUE => value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
                tag::METADATA => metadata = field.bounded(METADATA_BYTES_MAX)?,
                tag::REMAINING_MS => remaining_ms = Some(field.number()?),
                _ => {}
            }
            Ok(())
        })?;
        let version = version.ok_or(DecodeError::Missing(tag::VERSION))?;
        let Some(value) = value else {
            let hash = hash.or(key.map(|key| key.hash()));
            return Ok(Self::Trace(hash.ok_or(DecodeError::Missing(tag::HASH))?, version));
        };
        let remaining_ms = remaining_ms.ok_or(DecodeError::Missing(tag::REMAINING_MS))?;
        if remaining_ms > Ttl::MAX.as_millis() {
            return Err(DecodeError::Invalid(tag::REMAINING_MS));
        }
        let expires = Instant::from_millis(remaining_ms);
        let change = Change::Put { value, metadata, expires };
        let key = key.ok_or(DecodeError::Missing(tag::KEY))?;
        Ok(Self::Value { record: Record { key, version, change } })
    }
}

/// The fields of a parcel: those of a shipment, and a hash instead of a key.
mod tag {
    pub(super) const KEY: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const VALUE: u32 = 3;
    pub(super) const METADATA: u32 = 4;
    pub(super) const REMAINING_MS: u32 = 5;
    pub(super) const HASH: u32 = 7;
}

/// Numbers as 8 bytes each, little-endian, one after the other.
pub(super) fn write_numbers(out: &mut Writer<'_>, tag: u32, numbers: &[u64]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    out.bytes(tag, &bytes);
}

/// The numbers of [`write_numbers`], at most `most`.
pub(super) fn read_numbers(field: &Field<'_>, most: usize) -> Result<Vec<u64>, DecodeError> {
    let numbers = chunks::<8>(field, most)?;
    Ok(numbers.map(u64::from_le_bytes).collect())
}

pub(super) fn write_hashes(out: &mut Writer<'_>, tag: u32, hashes: &[KeyHash]) {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0.to_le_bytes()).collect();
    out.bytes(tag, &bytes);
}

pub(super) fn read_hashes(field: &Field<'_>) -> Result<Vec<KeyHash>, DecodeError> {
    let hashes = chunks::<16>(field, KEYS_MAX)?;
    Ok(hashes.map(|bytes| KeyHash(u128::from_le_bytes(bytes))).collect())
}

pub(super) fn write_rows(out: &mut Writer<'_>, tag: u32, rows: &[Row]) {
    let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES);
    for (hash, version) in rows {
        bytes.extend_from_slice(&hash.0.to_le_bytes());
        bytes.extend_from_slice(&version.to_bytes());
    }
    out.shared(tag, &bytes.into());
}

pub(super) fn read_rows(field: &Field<'_>) -> Result<Vec<Row>, DecodeError> {
    let rows = chunks::<ROW_BYTES>(field, ROWS_MAX)?;
    let row = |bytes: [u8; ROW_BYTES]| {
        let (mut hash, mut version) = ([0; 16], [0; 16]);
        hash.copy_from_slice(&bytes[..16]);
        version.copy_from_slice(&bytes[16..]);
        (KeyHash(u128::from_le_bytes(hash)), Version::from_bytes(version))
    };
    Ok(rows.map(row).collect())
}

pub(super) fn write_ages(out: &mut Writer<'_>, tag: u32, ages: &[Age]) {
    let numbers: Vec<u64> = ages.iter().flat_map(|age| [age.of.0, age.ms, age.lived_ms]).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_ages(field: &Field<'_>) -> Result<Vec<Age>, DecodeError> {
    let numbers = read_numbers(field, 3 * AGES_MAX)?;
    let age = |n: &[u64; 3]| Age { of: Incarnation(n[0]), ms: n[1], lived_ms: n[2] };
    Ok(numbers.as_chunks().0.iter().map(age).collect())
}

pub(super) fn write_line(out: &mut Writer<'_>, tag: u32, line: Line) {
    write_numbers(out, tag, &[line.of.0, line.ms]);
}

pub(super) fn read_line(field: &Field<'_>) -> Result<Line, DecodeError> {
    match read_numbers(field, 2)?[..] {
        [of, ms] => Ok(Line { of: Incarnation(of), ms }),
        _ => Err(field.invalid()),
    }
}

/// Cells as numbers: the second above six bits of the part.
pub(super) fn write_cells(out: &mut Writer<'_>, tag: u32, cells: &[Cell]) {
    let number = |cell: &Cell| (cell.second << 6) | (u64::from(cell.part) % PARTS as u64);
    let numbers: Vec<u64> = cells.iter().map(number).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_cells(field: &Field<'_>) -> Result<Vec<Cell>, DecodeError> {
    let cell = |n: u64| Cell { second: n >> 6, part: (n & 63) as u8 };
    Ok(read_numbers(field, PLACES_MAX)?.into_iter().map(cell).collect())
}

/// A place as a number, and back.
pub(super) const fn place_number(place: Place) -> u64 {
    ((place.is_read as u64) << 32) | place.tick as u64
}

pub(super) const fn place_from(number: u64) -> Place {
    Place { is_read: (number >> 32) & 1 == 1, tick: number as u32 }
}

pub(super) fn write_stretch(out: &mut Writer<'_>, tags: [u32; 2], stretch: Stretch) {
    if let Some(place) = stretch.colder_than {
        out.number(tags[0], place_number(place));
    }
    if let Some(since) = stretch.since {
        out.number(tags[1], u64::from(since));
    }
}

fn chunks<'a, const N: usize>(
    field: &Field<'a>,
    most: usize,
) -> Result<impl Iterator<Item = [u8; N]> + 'a, DecodeError> {
    let (chunks, rest) = field.content.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(field.invalid());
    }
    if chunks.len() > most {
        return Err(DecodeError::TooMany(field.tag));
    }
    Ok(chunks.iter().copied())
}
