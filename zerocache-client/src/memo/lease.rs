//! Leases of memoized keys.

use bytes::Bytes;
use zerocache_core::version::Incarnation;
use zerocache_net::clock;

use super::stored::StoredEntry;
use crate::client::{LeaseReply, LeaseTerms, LeaseToken, Write};
use crate::error::Error;
use crate::{Status, Written, ZerocacheClient};

/// The response to a lease request.
pub(crate) enum LeaseResponse {
    /// The caller computes.
    Granted(LeaseGrant),
    /// Another process computed the value.
    Found(StoredEntry),
    /// Another process holds the lease, for longer than the caller waits.
    Busy,
    /// No node could be asked: the caller computes.
    Unavailable,
}

/// Requests the lease of a key. Returns the response and the node that gave it.
pub(crate) async fn request(
    client: ZerocacheClient,
    key: Bytes,
    terms: LeaseTerms,
) -> (LeaseResponse, Option<Incarnation>) {
    let (response, node) = client.lease(key, terms).await;
    let response = match response {
        LeaseReply::Token(token) => LeaseResponse::Granted(LeaseGrant(Some(token))),
        LeaseReply::Found(entry) => LeaseResponse::Found(StoredEntry::read(*entry, clock::mono())),
        LeaseReply::Busy => LeaseResponse::Busy,
        LeaseReply::Unavailable => LeaseResponse::Unavailable,
    };
    (response, node)
}

/// A granted lease, which is released when it is dropped unused.
pub(crate) struct LeaseGrant(Option<LeaseToken>);

impl LeaseGrant {
    /// Ends the lease without a value: waiting processes stop waiting.
    pub(crate) fn fail(mut self) {
        if let Some(token) = self.0.take() {
            token.fail();
        }
    }

    /// Adds the lease's token to a write.
    pub(crate) fn write(self, put: Write) -> (Write, SpentGrant) {
        let version = self.0.as_ref().and_then(LeaseToken::version);
        let put = match version {
            Some(version) => put.token(version),
            None => put,
        };
        (put, SpentGrant(self.0))
    }
}

/// A lease whose value is being written.
pub(crate) struct SpentGrant(Option<LeaseToken>);

impl SpentGrant {
    /// Completes the write; if no value was stored, waiting processes stop waiting.
    pub(crate) fn complete(mut self, written: &Result<Written, Error>) {
        let is_refused = !matches!(
            written,
            Ok(Written { status: Status::Stored | Status::Superseded | Status::Unknown, .. })
        );
        if is_refused && let Some(token) = self.0.take() {
            token.fail();
        }
    }
}

impl Drop for SpentGrant {
    fn drop(&mut self) {
        // A write that has begun completes without its caller.
        if let Some(token) = self.0.take() {
            token.spent();
        }
    }
}
