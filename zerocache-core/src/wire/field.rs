//! Tagged, length-prefixed fields: `tag ‖ length ‖ bytes`, both numbers as LEB128 varints.
//!
//! A reader skips tags that it does not know, so that releases can differ. Numbers inside a field
//! are varints too. Nothing is allocated for a length before that many bytes are there.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::version::WALL_MS_MAX;

/// A message that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends in the middle of a number or a field.
    #[error("the message ends too early")]
    Truncated,
    /// A number takes more than 64 bits.
    #[error("a number in the message is too large")]
    Overflow,
    /// A field that must be there is not.
    #[error("the message lacks field {0}")]
    Missing(u32),
    /// A field holds what it may not.
    #[error("field {0} of the message holds what it may not")]
    Invalid(u32),
    /// More elements or bytes than a message may have.
    #[error("the message exceeds a limit in field {0}")]
    TooMany(u32),
    /// No message of this number is known.
    #[error("unknown kind of message {0}")]
    UnknownKind(u64),
}

/// Contents of at least this size are not copied where a writer may keep parts.
const PART_BYTES_MIN: usize = 4 << 10;

/// Appends fields to a buffer, or only counts the bytes that it would append.
#[derive(Debug, Default)]
pub struct Writer<'a> {
    out: Option<&'a mut BytesMut>,
    parts: Option<&'a mut Vec<Bytes>>,
    counted: usize,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    #[must_use]
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out: Some(out), parts: None, counted: 0 }
    }

    /// A writer whose message is all of `parts`, and then `out`: large contents become parts, which
    /// are shared and not copied.
    #[must_use]
    pub fn vectored(out: &'a mut BytesMut, parts: &'a mut Vec<Bytes>) -> Self {
        Self { out: Some(out), parts: Some(parts), counted: 0 }
    }

    /// How many bytes `write` would append.
    pub(crate) fn count(write: impl FnOnce(&mut Writer<'_>)) -> usize {
        let mut counting = Writer::default();
        write(&mut counting);
        counting.counted
    }

    /// Appends a bare number.
    pub fn varint(&mut self, mut n: u64) {
        let Some(out) = &mut self.out else {
            self.counted += varint_bytes(n) as usize;
            return;
        };
        while n >= 0x80 {
            out.put_u8(n as u8 | 0x80);
            n >>= 7;
        }
        out.put_u8(n as u8);
    }

    /// Appends a field of bytes.
    pub fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.varint(u64::from(tag));
        self.varint(bytes.len() as u64);
        match &mut self.out {
            Some(out) => out.put_slice(bytes),
            None => self.counted += bytes.len(),
        }
    }

    /// Appends a field of bytes that may be large.
    pub fn shared(&mut self, tag: u32, bytes: &Bytes) {
        match (&mut self.out, &mut self.parts) {
            (Some(_), Some(_)) if bytes.len() >= PART_BYTES_MIN => {}
            _ => return self.bytes(tag, bytes),
        }
        self.varint(u64::from(tag));
        self.varint(bytes.len() as u64);
        if let (Some(out), Some(parts)) = (&mut self.out, &mut self.parts) {
            parts.push(out.split().freeze());
            parts.push(bytes.clone());
        }
    }

    /// Appends a field with a number.
    pub fn number(&mut self, tag: u32, n: u64) {
        self.varint(u64::from(tag));
        self.varint(varint_bytes(n));
        self.varint(n);
    }

    /// Appends a field made of fields: `write` is called twice, first to count.
    pub fn nested(&mut self, tag: u32, write: impl Fn(&mut Writer<'_>)) {
        let mut counting = Writer::default();
        write(&mut counting);
        self.varint(u64::from(tag));
        self.varint(counting.counted as u64);
        match &self.out {
            Some(_) => write(self),
            None => self.counted += counting.counted,
        }
    }
}

/// How many bytes a number takes.
fn varint_bytes(n: u64) -> u64 {
    let bits = 64 - u64::from(n.leading_zeros().min(63));
    bits.div_ceil(7)
}

/// Walks over the fields of a message. Nothing of it is copied or shared before it is asked for.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    message: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `message`.
    #[must_use]
    pub fn new(message: &'a Bytes) -> Self {
        Self { message, rest: message }
    }

    /// Takes a bare number.
    ///
    /// # Errors
    /// When the message ends within it or it exceeds 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let (n, length) = varint(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(n)
    }

    /// Takes the next field, or none at the end.
    ///
    /// # Errors
    /// When the message ends within it.
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).unwrap_or(u32::MAX);
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        let (content, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(Some(Field { tag, content, message: self.message }))
    }

    /// Calls `take` with every field.
    ///
    /// # Errors
    /// The first error of the message or of `take`.
    pub fn each(
        mut self,
        mut take: impl FnMut(Field<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        while let Some(field) = self.next_field()? {
            take(field)?;
        }
        Ok(())
    }
}

/// The number at the start of `bytes`, and how many of them it takes.
///
/// # Errors
/// When they end within it or it exceeds 64 bits.
pub(super) fn varint(bytes: &[u8]) -> Result<(u64, usize), DecodeError> {
    let mut n = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(DecodeError::Overflow);
        }
        n |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((n, index + 1));
        }
    }
    Err(if bytes.len() < 10 { DecodeError::Truncated } else { DecodeError::Overflow })
}

/// One field: its tag and content.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// What it is.
    pub tag: u32,
    /// Its content.
    pub content: &'a [u8],
    message: &'a Bytes,
}

impl<'a> Field<'a> {
    /// The content as a number.
    ///
    /// # Errors
    /// When it is none, or something follows it.
    pub fn number(&self) -> Result<u64, DecodeError> {
        let (n, length) = varint(self.content)?;
        if length == self.content.len() { Ok(n) } else { Err(self.invalid()) }
    }

    /// The content as a time of day in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When it is no number, or later than any clock is believed to be: what follows from it would
    /// overflow a stamp.
    pub fn wall_ms(&self) -> Result<u64, DecodeError> {
        Some(self.number()?).filter(|ms| *ms <= WALL_MS_MAX).ok_or_else(|| self.invalid())
    }

    /// The content as text of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When it is longer or not UTF-8.
    pub fn text(&self, bytes_max: usize) -> Result<&'a str, DecodeError> {
        if self.content.len() > bytes_max {
            return Err(DecodeError::TooMany(self.tag));
        }
        core::str::from_utf8(self.content).map_err(|_| self.invalid())
    }

    /// The content if it has at most `bytes_max` bytes: a view of the message.
    ///
    /// # Errors
    /// When it is longer.
    pub fn bounded(&self, bytes_max: usize) -> Result<Bytes, DecodeError> {
        if self.content.len() > bytes_max {
            return Err(DecodeError::TooMany(self.tag));
        }
        Ok(self.message.slice_ref(self.content))
    }

    /// The content as exactly `N` bytes.
    ///
    /// # Errors
    /// When it has another length.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.content.try_into().map_err(|_| self.invalid())
    }

    /// The content as fields.
    #[must_use]
    pub fn reader(&self) -> Reader<'a> {
        Reader { message: self.message, rest: self.content }
    }

    /// The error for a content that does not fit.
    #[must_use]
    pub fn invalid(&self) -> DecodeError {
        DecodeError::Invalid(self.tag)
    }
}
