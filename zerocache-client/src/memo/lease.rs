//! Leave to compute, from the node that the key hashes to.

use bytes::Bytes;
use zerocache_core::version::Incarnation;
use zerocache_net::clock;

use super::stored::Stored;
use crate::client::Write;
use crate::client::{LeaseReply, LeaseTerms, LeaseToken};
use crate::error::Error;
use crate::{Status, Written, ZerocacheClient};

/// What asking for leave came to.
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

/// Asks for leave to compute a key; also says which node has answered.
pub(crate) async fn ask(
    client: ZerocacheClient,
    key: Bytes,
    terms: LeaseTerms,
) -> (Leased, Option<Incarnation>) {
    let (answer, node) = client.lease(key, terms).await;
    let leased = match answer {
        LeaseReply::Token(token) => Leased::Token(Token(Some(token))),
        LeaseReply::Found(entry) => Leased::Found(Stored::read(*entry, clock::mono())),
        LeaseReply::Busy => Leased::Busy,
        LeaseReply::Unavailable => Leased::Unavailable,
    };
    (leased, node)
}

/// Leave to compute a key; given back when it is dropped unused.
pub(crate) struct Token(Option<LeaseToken>);

impl Token {
    /// There will be no value: whoever waits for it is told.
    pub(crate) fn fail(mut self) {
        if let Some(token) = self.0.take() {
            token.fail();
        }
    }

    /// Writes with it.
    pub(crate) fn write(self, put: Write) -> (Write, Spent) {
        let version = self.0.as_ref().and_then(LeaseToken::version);
        let put = match version {
            Some(version) => put.token(version),
            None => put,
        };
        (put, Spent(self.0))
    }
}

/// A token of which the value is being written.
pub(crate) struct Spent(Option<LeaseToken>);

impl Spent {
    /// The write is over; where there is no value after all, whoever waits is told.
    pub(crate) fn written(mut self, written: &Result<Written, Error>) {
        let refused = !matches!(
            written,
            Ok(Written { status: Status::Stored | Status::Superseded | Status::Unknown, .. })
        );
        if refused && let Some(token) = self.0.take() {
            token.fail();
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        // A write that has begun goes on without its caller.
        if let Some(token) = self.0.take() {
            token.spent();
        }
    }
}
