//! Types that the codec writes and cannot read, or reads as other values.
//!
//! A field that is only written or only read (`skip_serializing`) shifts what follows, which may still be
//! read, as a wrong value; a type that asks what comes next (`untagged`) is never read. To store such values
//! would cost a write per call and never give a hit, or a wrong one.

use std::{any::type_name, collections::HashSet, sync::LazyLock};

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Serialize, de::DeserializeOwned};

use super::{CodecError, decode, encode};

/// Writes a value as [`encode`] does, to be stored. The first value of each type is read back: from then on
/// that is taken for granted.
///
/// # Errors
///
/// [`CodecError::Encode`], also when what was written gives no such value again.
pub(crate) fn encode_readable<T>(value: &T) -> Result<Bytes, CodecError>
where
    T: Serialize + DeserializeOwned,
{
    // A type without `'static` has no `TypeId`; where functions were merged into one, the name tells types
    // apart.
    static KNOWN: LazyLock<RwLock<HashSet<(usize, &str)>>> = LazyLock::new(RwLock::default);
    let bytes = encode(value)?;
    let place = (reads_back::<T> as fn(&[u8]) -> _ as usize, type_name::<T>());
    if !KNOWN.read().contains(&place) {
        // Outside of the lock: it is the user's code.
        reads_back::<T>(&bytes)?;
        KNOWN.write().insert(place);
    }
    Ok(bytes)
}

/// Whether bytes that were written from a value of this type give such a value again: what is read has the
/// same length when it is written once more.
fn reads_back<T: Serialize + DeserializeOwned>(written: &[u8]) -> Result<(), CodecError> {
    let again = decode::<T>(written).and_then(|value| encode(&value));
    match again {
        Ok(again) if again.len() == written.len() => Ok(()),
        Ok(_) => Err(CodecError::Encode("it would be read as another value".to_owned())),
        Err(error) => Err(CodecError::Encode(format!("it would not be read again: {error}"))),
    }
}
