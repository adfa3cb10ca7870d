//! Tagged, length-prefixed fields: `tag ‖ length ‖ bytes`, both numbers as LEB128 varints.
//!
//! A reader skips unknown tags, so that releases can differ. Numbers in fields are varints too. No memory is
//! allocated for a length before that many bytes have arrived.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::version::WALL_MS_MAX;

/// A message that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends within a number or a field.
    #[error("the message ends too early")]
    Truncated,
    /// A number exceeds 64 bits.
    #[error("a number in the message is too large")]
    Overflow,
    /// A required field is missing.
    #[error("the message lacks field {0}")]
    Missing(u32),
    /// The content of a field is not allowed.
    #[error("field {0} of the message has invalid content")]
    Invalid(u32),
    /// A field exceeds a limit of elements or bytes.
    #[error("the message exceeds a limit in field {0}")]
    TooMany(u32),
    /// The kind of the message is unknown.
    #[error("unknown kind of message {0}")]
    UnknownKind(u64),
}

/// The least content in bytes that a vectored writer shares instead of copying it.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// Appends fields to a buffer, or only counts their bytes.
#[derive(Debug, Default)]
pub struct Writer<'a> {
    out: Option<&'a mut BytesMut>,
    chunks: Option<&'a mut Vec<Bytes>>,
    counted: usize,
}

impl<'a> Writer<'a> {
    /// Creates a writer that appends to `out`.
    #[must_use]
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out: Some(out), chunks: None, counted: 0 }
    }

    /// Creates a writer for vectored output: the message is all of `chunks` and then `out`. Large contents
    /// become chunks, which are shared and not copied.
    #[must_use]
    pub fn vectored(out: &'a mut BytesMut, chunks: &'a mut Vec<Bytes>) -> Self {
        Self { out: Some(out), chunks: Some(chunks), counted: 0 }
    }

    /// Returns the number of bytes that `write` appends.
    pub(crate) fn count(write: impl FnOnce(&mut Writer<'_>)) -> usize {
        let mut counting = Writer::default();
        write(&mut counting);
        counting.counted
    }

    /// Appends a varint.
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
        match (&mut self.out, &mut self.chunks) {
            (Some(_), Some(_)) if bytes.len() >= SHARED_BYTES_MIN => {}
            _ => return self.bytes(tag, bytes),
        }
        self.varint(u64::from(tag));
        self.varint(bytes.len() as u64);
        if let (Some(out), Some(chunks)) = (&mut self.out, &mut self.chunks) {
            chunks.push(out.split().freeze());
            chunks.push(bytes.clone());
        }
    }

    /// Appends a field with a number.
    pub fn number(&mut self, tag: u32, n: u64) {
        self.varint(u64::from(tag));
        self.varint(varint_bytes(n));
        self.varint(n);
    }

    /// Appends a field of fields. `write` is called twice, first to count.
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

/// Returns the encoded length of a number.
fn varint_bytes(n: u64) -> u64 {
    let bits = 64 - u64::from(n.leading_zeros().min(63));
    bits.div_ceil(7)
}

/// Iterates over the fields of a message without copying them.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    message: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Creates a reader of `message`.
    #[must_use]
    pub fn new(message: &'a Bytes) -> Self {
        Self { message, rest: message }
    }

    /// Reads a varint.
    ///
    /// # Errors
    /// If the message ends within the number, or the number exceeds 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let (n, length) = varint(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(n)
    }

    /// Reads the next field; `None` at the end.
    ///
    /// # Errors
    /// If the message ends within the field.
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

/// Calls `take` with tag and content of every field of `bytes`, up to the first damaged one.
pub(crate) fn each_field<'a>(mut bytes: &'a [u8], mut take: impl FnMut(u32, &'a [u8])) {
    while let Ok((tag, used)) = varint(bytes) {
        let rest = &bytes[used..];
        let Ok((length, used)) = varint(rest) else { return };
        let split = usize::try_from(length).ok().and_then(|at| rest[used..].split_at_checked(at));
        let Some((content, after)) = split else { return };
        take(u32::try_from(tag).unwrap_or(u32::MAX), content);
        bytes = after;
    }
}

/// Decodes the varint at the start of `bytes`. Returns the number and its encoded length.
///
/// # Errors
/// If `bytes` end within the number, or the number exceeds 64 bits.
pub(crate) fn varint(bytes: &[u8]) -> Result<(u64, usize), DecodeError> {
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

/// One field.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// The tag.
    pub tag: u32,
    /// The content.
    pub content: &'a [u8],
    message: &'a Bytes,
}

impl<'a> Field<'a> {
    /// Decodes the content as a number.
    ///
    /// # Errors
    /// If the content is not exactly one varint.
    pub fn number(&self) -> Result<u64, DecodeError> {
        let (n, length) = varint(self.content)?;
        if length == self.content.len() { Ok(n) } else { Err(self.invalid()) }
    }

    /// Decodes the content as a wall clock time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If the content is not a number, or above [`WALL_MS_MAX`]: later times would overflow a stamp.
    pub fn wall_ms(&self) -> Result<u64, DecodeError> {
        Some(self.number()?).filter(|ms| *ms <= WALL_MS_MAX).ok_or_else(|| self.invalid())
    }

    /// Decodes the content as text of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// If the content is longer, or not UTF-8.
    pub fn text(&self, bytes_max: usize) -> Result<&'a str, DecodeError> {
        if self.content.len() > bytes_max {
            return Err(DecodeError::TooMany(self.tag));
        }
        core::str::from_utf8(self.content).map_err(|_| self.invalid())
    }

    /// Returns the content, at most `bytes_max` bytes, as a view of the message.
    ///
    /// # Errors
    /// If the content is longer.
    pub fn bounded(&self, bytes_max: usize) -> Result<Bytes, DecodeError> {
        if self.content.len() > bytes_max {
            return Err(DecodeError::TooMany(self.tag));
        }
        Ok(self.message.slice_ref(self.content))
    }

    /// Returns the content as exactly `N` bytes.
    ///
    /// # Errors
    /// If the content has another length.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.content.try_into().map_err(|_| self.invalid())
    }

    /// Returns a reader of the fields in the content.
    #[must_use]
    pub fn reader(&self) -> Reader<'a> {
        Reader { message: self.message, rest: self.content }
    }

    /// Returns the error for invalid content of this field.
    #[must_use]
    pub fn invalid(&self) -> DecodeError {
        DecodeError::Invalid(self.tag)
    }
}
