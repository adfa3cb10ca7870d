//! What other nodes hold of a key, and what is sent to one of them alone: for the tools that compare and repair
//! copies.

use std::{net::SocketAddr, time::Duration};

use tokio::sync::oneshot;
use zerocache_core::{
    call::{CallFailure, CallResult},
    key::Key,
    locate::{NodeCopies, Spread},
    node::Caller,
    version::Incarnation,
    wire::{Envelope, Refusal, RefusalCode, Request, RequestMessage, Response},
};

use super::NodeDriver;

/// How long another node may take for one of these requests.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

impl NodeDriver {
    /// Asks all known nodes what they hold of `keys`, at most
    /// [`LOCATED_KEYS_MAX`](zerocache_core::locate::LOCATED_KEYS_MAX). Takes up to 1.4 s if some are silent.
    ///
    /// # Errors
    /// If too many such requests are in progress, or the node has no response.
    pub async fn locate(&self, keys: Vec<Key>, digest: bool) -> Result<Vec<NodeCopies>, Refusal> {
        let request = Request::Locate { keys, digest, spread: Spread::Cluster };
        match self.ask_own(request).await {
            Response::Located(nodes) => Ok(nodes),
            Response::Refused(refusal) => Err(refusal),
            _ => Err(Refusal {
                code: RefusalCode::Overloaded,
                text: "the node has no response".to_owned(),
                wall_ms: 0,
                value_bytes_max: 0,
            }),
        }
    }

    /// Sends a request to one node, which may be this one, in the name of this one.
    ///
    /// # Errors
    /// If it does not arrive, or there is no response in time.
    pub async fn ask_node(
        &self,
        (address, id): (SocketAddr, Incarnation),
        request: Request,
    ) -> CallResult {
        if id == self.id {
            return Ok(self.ask_own(request).await);
        }
        let mut message = self.to_own(request);
        message.envelope.from = Some(self.id);
        message.envelope.to = Some(id);
        let (sender, receiver) = oneshot::channel();
        self.calls.start(address, message, CALL_TIMEOUT, move |result, _| {
            // Nobody may wait any more.
            let _given_up = sender.send(result);
        });
        receiver.await.unwrap_or(Err(CallFailure::NoAnswer))
    }

    async fn ask_own(&self, request: Request) -> Response {
        self.request(Caller::unauthenticated(None), self.to_own(request)).await
    }

    fn to_own(&self, request: Request) -> RequestMessage {
        let envelope = Envelope { cluster: self.cluster, ..Envelope::default() };
        RequestMessage { envelope, request }
    }
}
