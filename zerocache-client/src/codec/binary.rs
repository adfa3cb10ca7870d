//! Values in bincode 2, with its standard configuration: little-endian, variable-length integers.
//!
//! It cannot read types that inspect the input before they decide (`#[serde(untagged)]`,
//! `#[serde(flatten)]`, `serde_json::Value`).

use std::io::Write;

use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeSeed;

use super::CodecError;
use super::writing::Format;

/// The bytes that decoding a value may allocate: eight times the largest value that a node accepts by
/// default. Values arrive from the network; without a limit a damaged length would reserve gigabytes.
const ALLOCATION_MAX: usize = 64 * 1024 * 1024;

/// bincode.
pub(super) struct Bincode;

impl Format for Bincode {
    const TAG: u8 = super::TAG;
    const IS_NAMED: bool = false;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut impl Write) -> Result<(), CodecError> {
        let config = bincode::config::standard();
        match bincode::serde::encode_into_std_write(value, out, config) {
            Ok(_) => Ok(()),
            // The message of serde, without that of bincode around it.
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
