//! The codec in which a value is written.

use std::any::type_name;
#[cfg(feature = "messagepack")]
use std::collections::BTreeSet;
use std::str::FromStr;

use bytes::Bytes;
#[cfg(feature = "messagepack")]
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;
use super::binary::Bincode;
#[cfg(feature = "messagepack")]
use super::messagepack::MessagePack;
use super::writing::write;

/// The codec in which typed values are written. Values are read by the tag that they begin with: a reader needs
/// no setting, and reads the values of every codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// bincode, and MessagePack for each type of which this process has seen a value that bincode does not read
    /// back.
    #[default]
    Auto,
    /// bincode: small and fast, without names. Values that it does not read back are not stored.
    Bincode,
    /// MessagePack with names, in the form for readable formats, as JSON has it. It reads back what inspects its
    /// input: `serde_json::Value`, `untagged`, `flatten`, internally tagged enums, and fields that are left out.
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

/// The names of the types of which bincode did not read back a value. Types of one name share an entry, which
/// is harmless: both codecs are tried for each value that the first one does not read back.
#[cfg(feature = "messagepack")]
static NAMED: RwLock<BTreeSet<&'static str>> = RwLock::new(BTreeSet::new());

impl Codec {
    pub(super) fn encode<T: Serialize + DeserializeOwned>(
        self,
        value: &T,
    ) -> Result<Bytes, CodecError> {
        match self {
            Codec::Auto => auto(value),
            Codec::Bincode => write::<Bincode, T>(value),
            #[cfg(feature = "messagepack")]
            Codec::MessagePack => write::<MessagePack, T>(value),
        }
    }
}

#[cfg(not(feature = "messagepack"))]
fn auto<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    write::<Bincode, T>(value).inspect_err(|error| {
        tracing::trace!(%error, of = type_name::<T>(), "bincode does not read a value back");
    })
}

#[cfg(feature = "messagepack")]
fn auto<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    let name = type_name::<T>();
    if NAMED.read().contains(name) {
        // Some values are read back by bincode alone, such as `Some(None)`.
        return write::<MessagePack, T>(value)
            .or_else(|error| write::<Bincode, T>(value).map_err(|_| error));
    }
    let error = match write::<Bincode, T>(value) {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error,
    };
    let Ok(bytes) = write::<MessagePack, T>(value) else { return Err(error) };
    if NAMED.write().insert(name) {
        tracing::info!(
            of = name,
            %error,
            "values of this type are stored as MessagePack from now on: bincode does not read one back"
        );
    }
    Ok(bytes)
}
