//! bincode 2 as a codec.

use std::io::Write;

use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeSeed;

use super::{Codec, CodecError};

/// bincode 2 with its standard configuration: little-endian, variable-length integers.
///
/// It cannot read types that ask what comes next (`#[serde(untagged)]`, `#[serde(flatten)]`,
/// `serde_json::Value`).
#[derive(Clone, Copy, Debug)]
pub struct Bincode;

/// What a decoded value may claim to allocate, in bytes. Values arrive from the network; without
/// a limit a damaged length reserves gigabytes. Eight times the largest value that a node takes by
/// default.
const ALLOCATION_MAX: usize = 64 * 1024 * 1024;

impl Codec for Bincode {
    // Above ASCII and no lead byte of UTF-8, so that text is never taken for a typed value.
    const TAG: u8 = 0x81;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut impl Write) -> Result<(), CodecError> {
        let config = bincode::config::standard();
        match bincode::serde::encode_into_std_write(value, out, config) {
            Ok(_) => Ok(()),
            // What serde says, without what bincode says around it.
            Err(EncodeError::OtherString(text)) => Err(CodecError::Encode(text)),
            Err(error) => Err(CodecError::Encode(error.to_string())),
        }
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, CodecError> {
        let config = bincode::config::standard().with_limit::<ALLOCATION_MAX>();
        let (value, consumed) = bincode::serde::seed_decode_from_slice(seed, bytes, config)
            .map_err(|error| match error {
                DecodeError::OtherString(text) => CodecError::Decode(text),
                error => CodecError::Decode(error.to_string()),
            })?;
        if consumed != bytes.len() {
            let rest = bytes.len() - consumed;
            return Err(CodecError::Decode(format!("{rest} bytes follow the value")));
        }
        Ok(value)
    }
}
