//! Leave to compute, from the node that the key hashes to.

use bytes::Bytes;

use super::options::LeaseRule;
use super::stored::Stored;
use crate::ZerocacheClient;

/// What asking for leave came to.
#[allow(dead_code, reason = "until the client can ask")]
pub(crate) enum Leased {
    /// Compute.
    Token(Token),
    /// Another process did.
    Found(Stored),
    /// Another process is at it, for longer than one waits.
    Busy,
    /// Nobody can be asked: compute.
    Unavailable,
}

/// Leave to compute a key.
pub(crate) struct Token;

impl Token {
    /// There will be no value: whoever waits for it is told.
    pub(crate) fn fail(self) {}
}

/// Asks for leave to compute a key. With `at_once` nobody is waited for.
pub(crate) async fn ask(
    _client: ZerocacheClient,
    _key: Bytes,
    _rule: LeaseRule,
    _at_once: bool,
) -> Leased {
    Leased::Unavailable
}
