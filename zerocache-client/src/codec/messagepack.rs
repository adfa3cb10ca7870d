//! Values in MessagePack: fields and variants by name, in the form for readable formats.
//!
//! serde reads `untagged`, `flatten` and tagged enums from a copy that always counts as readable: a type with two
//! forms (an IP address, a UUID) is found there only if it was written as text.

use std::io::{ErrorKind, Write};

use rmp_serde::{Deserializer, Serializer, decode, encode};
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};

use super::CodecError;
use super::writing::Format;

/// The deepest nesting of a value, as that of serde_json: bytes from the network must not exhaust the stack.
const DEPTH_MAX: usize = 128;

/// MessagePack.
pub(super) struct MessagePack;

impl Format for MessagePack {
    const TAG: u8 = 0x82;
    const IS_NAMED: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut impl Write) -> Result<(), CodecError> {
        let mut output = Serializer::new(out).with_struct_map().with_human_readable();
        value.serialize(&mut output).map_err(|error| match error {
            // The message of serde.
            encode::Error::Syntax(text) => CodecError::Encode(text),
            error => CodecError::Encode(error.to_string()),
        })
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, CodecError> {
        let mut input = Deserializer::from_read_ref(bytes).with_human_readable();
        input.set_max_depth(DEPTH_MAX);
        let value = seed.deserialize(&mut input).map_err(|error| match error {
            decode::Error::Syntax(text) => CodecError::Decode(text),
            error => CodecError::Decode(error.to_string()),
        })?;
        // A unit reads one marker, whatever it is.
        match <()>::deserialize(&mut input) {
            Err(decode::Error::InvalidMarkerRead(error))
                if error.kind() == ErrorKind::UnexpectedEof =>
            {
                Ok(value)
            }
            _ => Err(CodecError::Decode("bytes follow the value".to_owned())),
        }
    }
}
