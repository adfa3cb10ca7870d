//! Signed URLs: without a key of the service nobody can have images made.
//!
//! `sig` is the last parameter. It is the keyed BLAKE3 hash, in hexadecimal digits, of everything before it: the
//! path and the query as they were sent, up to `&sig=` or `?sig=`.

use std::fmt;

use blake3::Hash;

use crate::failure::Failure;

/// Separates these hashes from all other uses of the same secret.
const CONTEXT: &str = "zerocache images 2026-11-29 signature of a URL";

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The keys with which URLs may be signed: several, so that one can be replaced.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads secrets, one per line. Empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// If there is none, or one is too short.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let secrets = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = secrets
            .map(|secret| match secret.len() {
                SECRET_BYTES_MIN.. => Ok(blake3::derive_key(CONTEXT, secret.as_bytes())),
                _ => Err(format!("a secret has less than {SECRET_BYTES_MIN} characters")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err("there is no secret".to_owned()) } else { Ok(Self(keys)) }
    }

    /// Whether URLs need no signature.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a path with its query, signed with the first key.
    #[must_use]
    pub fn sign(&self, target: &str) -> Option<String> {
        let signature = blake3::keyed_hash(self.0.first()?, target.as_bytes());
        let separator = if target.contains('?') { '&' } else { '?' };
        Some(format!("{target}{separator}sig={}", signature.to_hex()))
    }

    /// Accepts the path and query of a request, if no signature is needed or it has a right one.
    ///
    /// # Errors
    /// [`Failure::BadSignature`].
    pub fn verify(&self, target: &str) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let (message, signature) = target.rsplit_once("sig=").ok_or(Failure::BadSignature)?;
        let message = message.strip_suffix(['&', '?']).ok_or(Failure::BadSignature)?;
        let signature = Hash::from_hex(signature).map_err(|_| Failure::BadSignature)?;
        // Hashes are compared in constant time. Every key is tried, whichever is the right one.
        let right = self.0.iter().fold(false, |right, key| {
            right | (blake3::keyed_hash(key, message.as_bytes()) == signature)
        });
        if right { Ok(()) } else { Err(Failure::BadSignature) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} keys", self.0.len())
    }
}

/// A secret that callers send as it is, compared in constant time.
#[derive(Clone)]
pub struct SharedKey(Hash);

impl SharedKey {
    /// Creates the key of a secret.
    ///
    /// # Errors
    /// If it is too short.
    pub fn new(secret: &str) -> Result<Self, String> {
        let secret = secret.trim();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!("a key has less than {SECRET_BYTES_MIN} characters"));
        }
        Ok(Self(blake3::hash(secret.as_bytes())))
    }

    /// Whether a caller sent the secret.
    #[must_use]
    pub fn matches(&self, sent: Option<&[u8]>) -> bool {
        sent.is_some_and(|sent| blake3::hash(sent) == self.0)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "/image?url=https%3A%2F%2Fexample.org%2Fa.jpg&w=250";

    #[test]
    fn signed_url_is_accepted_and_no_other() {
        let keys =
            Keys::parse("# comment\n\nfirst secret of the team\nsecond secret of the team\n");
        let keys = keys.expect("keys");
        let signed = keys.sign(TARGET).expect("signed");
        assert_eq!(keys.verify(&signed), Ok(()));
        let (message, hash) = signed.split_once("&sig=").expect("a signature");
        let wrong = [
            TARGET.to_owned(),
            format!("{TARGET}&sig="),
            format!("{TARGET}&sig=00"),
            format!("{}0&sig={hash}", message),
            format!("{message}&sig={}", "0".repeat(64)),
            format!("{signed}&w=500"),
            format!("{message}sig={hash}"),
            format!("sig={hash}"),
            String::new(),
        ];
        for target in wrong {
            assert_eq!(keys.verify(&target), Err(Failure::BadSignature), "{target}");
        }
    }

    #[test]
    fn url_signed_with_the_previous_key_is_accepted() {
        let old = Keys::parse("first secret of the team").expect("keys");
        let both =
            Keys::parse("second secret of the team\nfirst secret of the team").expect("keys");
        let signed = old.sign(TARGET).expect("signed");
        assert_eq!(both.verify(&signed), Ok(()));
        assert_eq!(old.verify(&both.sign(TARGET).expect("signed")), Err(Failure::BadSignature));
        assert_eq!(old.verify(&old.sign("/thumb/20x20/x").expect("signed")), Ok(()));
    }

    #[test]
    fn service_without_keys_accepts_every_url() {
        assert_eq!(Keys::default().verify(TARGET), Ok(()));
        assert!(Keys::parse("short").is_err() && Keys::parse("\n# none\n").is_err());
    }

    #[test]
    fn shared_key_matches_itself_alone() {
        let key = SharedKey::new("of gateways and workers\n").expect("a key");
        assert!(key.matches(Some(b"of gateways and workers")));
        assert!(!key.matches(Some(b"of gateways and worker")) && !key.matches(None));
        assert!(SharedKey::new("short").is_err());
    }
}
