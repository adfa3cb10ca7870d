//! The keys of datagrams: a node hands them out in a handshake, one for each caller, and derives them from
//! its secret.

use core::fmt;

#[cfg(feature = "sealed-datagrams")]
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use crate::version::Incarnation;

/// The bytes by which a MAC, or a seal, makes a datagram longer.
pub(super) const TAG_BYTES: usize = 16;

/// The key of the datagrams between a node and one caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Creates the key from its bytes in a handshake.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key for a handshake.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the MAC of `bytes`.
    pub(super) fn mac(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let mac = blake3::keyed_hash(&self.0, bytes);
        core::array::from_fn(|n| mac.as_bytes()[n])
    }

    /// Encrypts `content` and authenticates it together with `head`. A nonce is used once with each key.
    #[cfg(feature = "sealed-datagrams")]
    pub(super) fn encrypt(
        &self,
        nonce: [u8; 12],
        head: &[u8],
        content: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let cipher = ChaCha20Poly1305::new(&self.0.into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), head, content.into()).ok()?;
        Some(tag.into())
    }

    /// Decrypts `content`. Returns false if it, or `head`, is not what was sealed with this key.
    #[cfg(feature = "sealed-datagrams")]
    pub(super) fn decrypt(
        &self,
        nonce: [u8; 12],
        head: &[u8],
        content: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> bool {
        let cipher = ChaCha20Poly1305::new(&self.0.into());
        let content = content.into();
        cipher.decrypt_inout_detached(&nonce.into(), head, content, &tag.into()).is_ok()
    }

    /// Without the cipher nothing is sealed: a node does not offer it, and this gives nothing away.
    #[cfg(not(feature = "sealed-datagrams"))]
    pub(super) fn encrypt(
        &self,
        _: [u8; 12],
        _: &[u8],
        content: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        content.fill(0);
        None
    }

    #[cfg(not(feature = "sealed-datagrams"))]
    pub(super) fn decrypt(&self, _: [u8; 12], _: &[u8], _: &mut [u8], _: [u8; TAG_BYTES]) -> bool {
        false
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// What a node gives a caller in a handshake for the datagrams from it: a key, and how they are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The key.
    pub key: SessionKey,
    /// The number of the key if datagrams are encrypted, as format version 2 has them; `None` for version
    /// 1, whose datagrams are authenticated only.
    pub generation: Option<u32>,
}

impl Session {
    /// Derives the session of a caller from the node's secret. The node need not store the key.
    ///
    /// In version 1 a caller has one key, because a datagram does not say which one sealed it. In version 2
    /// each handshake gives another one, so that no nonce is used twice.
    #[must_use]
    pub fn derive(secret: &[u8; 32], caller: Incarnation, generation: Option<u32>) -> Self {
        let mut input = [0; 12];
        input[..8].copy_from_slice(&caller.0.to_be_bytes());
        input[8..].copy_from_slice(&generation.unwrap_or(0).to_be_bytes());
        let input = if generation.is_some() { &input[..] } else { &input[..8] };
        Self { key: SessionKey(*blake3::keyed_hash(secret, input).as_bytes()), generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_are_pinned() {
        let key = |generation| Session::derive(&[9; 32], Incarnation(0x0102), generation).key;
        let first = |key: SessionKey| u128::from_be_bytes(*key.0.first_chunk().unwrap());
        assert_eq!(first(key(None)), 0x0eea334e8908df3a72994bd83f1d2e7a);
        assert_eq!(first(key(Some(0))), 0x9e9ac0d60feaf0ab26fda985164e44ce);
        assert_eq!(first(key(Some(7))), 0xa289ec90fedcab63c6a6ed85b20f40b3);
    }
}
