//! Images as they are stored in the cache and sent.

use serde::{Deserialize, Serialize};

use crate::convert::Kind;
use crate::source::{Source, SourceHash};
use crate::variant::Variant;

/// Separates the keys from other uses of the hash; another text makes all stored images new ones. To be changed
/// with what the conversion makes.
const CONTEXT: &str = "zerocache images 2026-11-29 key of a variant";

/// An original or a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The type.
    pub kind: Kind,
    /// The width in pixels; 0 for an original.
    pub width: u32,
    /// The height in pixels; 0 for an original.
    pub height: u32,
    /// The hash of the bytes, of which the entity tag is made.
    pub hash: [u8; 16],
    /// The file. In one piece: a plain `Vec<u8>` goes byte by byte through serde.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Creates a picture.
    #[must_use]
    pub fn new(kind: Kind, (width, height): (u32, u32), bytes: Vec<u8>) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        Self { kind, width, height, hash, bytes }
    }

    /// The entity tag. It follows from the bytes alone, so that an image that is made again in the same way is the
    /// same one to a browser.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", SourceHash(self.hash))
    }
}

/// The key of an original.
#[must_use]
pub fn original_key(source: &Source) -> String {
    format!("images:original:{}", source.hash())
}

/// The key of a variant.
#[must_use]
pub fn variant_key(source: &Source, variant: &Variant) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&source.hash().0).update(variant.to_string().as_bytes());
    format!("images:variant:{}", &hasher.finalize().to_hex()[..32])
}
