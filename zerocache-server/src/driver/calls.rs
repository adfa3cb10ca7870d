//! Calls to other nodes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use zerocache_core::wire::RequestMessage;
use zerocache_net::{
    clock,
    transport::{
        Transport,
        framed::{CallResult, Completion},
    },
};

/// Makes calls to other nodes, and owns their tasks.
pub(super) struct OutboundCalls {
    transport: Arc<dyn Transport>,
    tasks: Mutex<JoinSet<()>>,
}

impl OutboundCalls {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, tasks: Mutex::default() }
    }

    /// Sends `message`. `completion` receives the result and how long the call took, in microseconds, on
    /// whichever task learns of it.
    pub(super) fn start(
        &self,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
        completion: impl FnOnce(CallResult, u64) + Send + 'static,
    ) {
        let started = clock::elapsed();
        let completion: Completion = Box::new(move |result| {
            let elapsed_us = clock::elapsed().saturating_sub(started).as_micros();
            completion(result, u64::try_from(elapsed_us).unwrap_or(u64::MAX));
        });
        let unsent = self.transport.try_call_then(to, message, timeout, completion);
        let Err(unsent) = unsent else { return };
        let (message, completion) = *unsent;
        let call = self.transport.call(to, message, timeout);
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move { completion(call.await) });
    }
}
