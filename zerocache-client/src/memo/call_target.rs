//! The identity of a call: its client and key.

use bytes::Bytes;

use super::args::Args;
use super::compute::SITE;
use super::key::CallKey;
use super::purge::Purge;
use super::site::Site;
use super::target::Target;
use crate::ZerocacheClient;
use crate::codec::CodecError;
use crate::error::Error;
use zerocache_core::purge::PurgeTarget;

/// The identity of a call: its client and key.
#[derive(Clone)]
pub(super) struct CallTarget {
    pub(super) site: &'static Site,
    pub(super) target: Target,
    /// `None` for a call that cannot have a key, or has an explicit one.
    pub(super) identity: Option<CallKey>,
    /// The client and key of `get_or_compute`.
    pub(super) explicit: Option<Box<ExplicitKey>>,
}

/// A key that is used as it is, and its client, whatever the scope.
#[derive(Clone)]
pub(super) struct ExplicitKey {
    pub(super) client: ZerocacheClient,
    pub(super) key: Bytes,
}

impl CallTarget {
    /// Returns the target of a call of the function at `site`.
    #[inline]
    pub(super) fn new(site: &'static Site, target: Target, args: Args) -> Self {
        CallTarget { site, target, identity: args.into_key(), explicit: None }
    }

    /// Returns the target of a call with an explicit key.
    pub(super) fn explicit(client: &ZerocacheClient, key: Bytes) -> Self {
        let explicit = ExplicitKey { client: client.clone(), key };
        let (target, explicit) = (Target::client(client.clone()), Some(Box::new(explicit)));
        CallTarget { site: &SITE, target, identity: None, explicit }
    }

    pub(super) fn client(&self) -> ZerocacheClient {
        match &self.explicit {
            Some(explicit) => explicit.client.clone(),
            None => self.target.resolve(),
        }
    }

    /// The purge of all results of the function.
    pub(super) fn purge_function(&self) -> Purge {
        let client = self.client();
        let id = self.identity.as_ref().map(CallKey::function).ok_or_else(|| {
            Error::from(CodecError::Encode("this call has no key of its function".to_owned()))
        });
        let namespace = client.namespace().to_owned();
        Purge::new(&client, id.map(|id| PurgeTarget::Function { namespace, id }))
    }

    pub(super) fn key(&self, client: &ZerocacheClient) -> Option<Bytes> {
        if let Some(explicit) = &self.explicit {
            return Some(explicit.key.clone());
        }
        Some(self.identity.as_ref()?.to_bytes(client.namespace()))
    }
}
