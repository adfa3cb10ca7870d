//! The codec in which a value is written.

use std::any::type_name;
use std::str::FromStr;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::binary::Bincode;
#[cfg(feature = "messagepack")]
use super::messagepack::MessagePack;
#[cfg(feature = "messagepack")]
use super::shape;
use super::writing::{Proof, write};
use super::{CodecError, Destination};

/// The codec in which typed values are written. Values are read by the tag that they begin with: a reader needs
/// no setting, and reads the values of every codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// bincode, and MessagePack for values that bincode does not read back. A value that serde reads from a copy
    /// of its input (`untagged`, `flatten`, internally tagged) is stored only if its type implements `PartialEq`
    /// where it is written, so that it can be compared.
    #[default]
    Auto,
    /// bincode: small and fast, without names. Values that it does not read back are not stored.
    Bincode,
    /// MessagePack with names, in the form for readable formats, as JSON has it. It reads back what inspects its
    /// input: `serde_json::Value`, `untagged`, `flatten`, internally tagged enums, and fields that are left out.
    /// What is lost in a copy of the input is not noticed, if the type cannot be compared.
    #[cfg(feature = "messagepack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "messagepack")))]
    MessagePack,
}

impl FromStr for Codec {
    type Err = String;

    /// Parses `auto`, `bincode` or `messagepack`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Codec::Auto),
            "bincode" => Ok(Codec::Bincode),
            #[cfg(feature = "messagepack")]
            "messagepack" => Ok(Codec::MessagePack),
            #[cfg(not(feature = "messagepack"))]
            "messagepack" => {
                Err("messagepack needs the feature `messagepack` of zerocache-client".to_owned())
            }
            _ => Err(format!("{text:?}; auto, bincode and messagepack are allowed")),
        }
    }
}

/// Encodes a value in the codec of its destination, and reads it back.
pub(super) fn encode<T: Serialize + DeserializeOwned>(
    value: &T,
    destination: Destination,
    equality: Option<fn(&T, &T) -> bool>,
) -> Result<Bytes, CodecError> {
    let proof = Proof { equality, trusts_copies: destination.codec != Codec::Auto };
    match destination.codec {
        Codec::Auto => auto(value, proof, destination.is_stored),
        Codec::Bincode => write::<Bincode, T>(value, proof),
        #[cfg(feature = "messagepack")]
        Codec::MessagePack => write::<MessagePack, T>(value, proof),
    }
}

#[cfg(not(feature = "messagepack"))]
fn auto<T: Serialize + DeserializeOwned>(
    value: &T,
    proof: Proof<T>,
    _is_stored: bool,
) -> Result<Bytes, CodecError> {
    write::<Bincode, T>(value, proof).inspect_err(|error| {
        tracing::trace!(%error, of = type_name::<T>(), "bincode does not read a value back");
    })
}

#[cfg(feature = "messagepack")]
fn auto<T: Serialize + DeserializeOwned>(
    value: &T,
    proof: Proof<T>,
    is_stored: bool,
) -> Result<Bytes, CodecError> {
    use super::preference::Order;

    let preference = shape::of::<T>().preference;
    let order = preference.order();
    let mut refused = None;
    if order == Order::BincodeFirst {
        match write::<Bincode, T>(value, proof) {
            Ok(bytes) => {
                preference.note_bincode();
                return Ok(bytes);
            }
            Err(error) => refused = Some(error),
        }
    }
    let error = match write::<MessagePack, T>(value, proof) {
        Ok(bytes) => {
            preference.note_messagepack(refused.is_some());
            if is_stored && preference.is_news() {
                tracing::info!(
                    of = type_name::<T>(),
                    error = refused.as_ref().map(tracing::field::display),
                    "a value of this type is stored as MessagePack: bincode does not read one back"
                );
            }
            return Ok(bytes);
        }
        Err(error) => error,
    };
    if order == Order::MessagePackFirst
        && let Ok(bytes) = write::<Bincode, T>(value, proof)
    {
        // Some values are read back by bincode alone, such as `Some(None)`.
        return Ok(bytes);
    }
    // What would help says MessagePack, if something would.
    Err(match refused {
        Some(first) if error != CodecError::Unproven => first,
        _ => error,
    })
}
