//! The entry points of requests, whichever protocol carries them: reads go to the
//! [`EntryReader`](crate::reads::EntryReader), writes through [`NodeDriver::write`] or a batch, and
//! everything else to the state machine as a message.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use zerocache_core::{
    key::Key,
    node::{Caller, ConnectionId, Effect, Input, RequestId, Write, WriteOp},
    store::Lookup,
    wire::{Envelope, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::clock;

use super::{
    NodeDriver,
    reply::{Reply, ReplyBatch, ReplyTo},
};
use crate::telemetry::TimedOperation;

/// A request that the state machine handles.
pub(crate) enum NodeRequest {
    /// A write by a client.
    Write(Write),
    /// Any other message, the connection that carries it, and who sent it.
    Message(ConnectionId, Caller, RequestMessage),
}

impl NodeRequest {
    /// Returns the operation under which its duration is counted, if it is.
    fn operation(&self) -> Option<TimedOperation> {
        match self {
            Self::Write(write) => Some(match write.op {
                WriteOp::Put { .. } | WriteOp::Touch { .. } | WriteOp::Use => TimedOperation::Put,
                WriteOp::Delete | WriteOp::Take | WriteOp::Purge { .. } => TimedOperation::Delete,
            }),
            Self::Message(_, _, message) => match message.request {
                Request::Replicate(_) => Some(TimedOperation::Replicate),
                Request::Lease { .. } => Some(TimedOperation::Lease),
                _ => None,
            },
        }
    }

    /// Returns the size of the value that a client writes, if it writes one.
    fn value_bytes(&self) -> Option<usize> {
        match self {
            Self::Write(Write { op: WriteOp::Put { value, .. }, .. }) => Some(value.len()),
            _ => None,
        }
    }

    fn into_input(self, id: RequestId) -> Input {
        match self {
            Self::Write(write) => Input::Write { id, write },
            Self::Message(connection, caller, message) => {
                Input::Request { id, connection, caller, message }
            }
        }
    }
}

/// A message, sorted by what it needs.
pub(crate) enum Admission {
    /// A read or a refusal, with its response.
    Complete(Response),
    /// A request for the state machine.
    Node(NodeRequest),
}

impl NodeDriver {
    /// Sorts a message of `caller` that came on `connection`: answers a read, refuses what is meant for
    /// another node or too late, and hands out the rest.
    pub(crate) fn admit(
        &self,
        (connection, caller): (ConnectionId, Caller),
        message: RequestMessage,
    ) -> Admission {
        let RequestMessage { envelope, request } = message;
        if let Some(refusal) = self.identity.refusal(&envelope, &request) {
            return Admission::Complete(refusal);
        }
        let Some(timeout_ms) = envelope.remaining_ms() else {
            let text = "the deadline passed before the request was read";
            return Admission::Complete(Response::refused(RefusalCode::Expired, text));
        };
        let Envelope { seen, delay_ms, from, .. } = envelope;
        let write = |write| {
            let is_forwarded = from.is_some();
            let write = Write { seen, timeout_ms, delay_ms, is_forwarded, ..write };
            Admission::Node(NodeRequest::Write(write))
        };
        match request {
            Request::Get { key } => {
                let context = self.reader.context();
                let is_own = !self.reader.is_witness(key.as_bytes());
                match is_own.then(|| self.reader.get(&key, context)) {
                    Some(lookup @ (Lookup::Hit(_) | Lookup::Miss { .. })) => {
                        Admission::Complete(context.response(lookup))
                    }
                    // At an owner, or on disk.
                    Some(Lookup::OnDisk) | None => {
                        let message = RequestMessage { envelope, request: Request::Get { key } };
                        Admission::Node(NodeRequest::Message(connection, caller, message))
                    }
                }
            }
            Request::Put { key, value, metadata, ttl, ack, version } => {
                let op = WriteOp::Put { value, metadata, ttl };
                write(Write { ack, version, ..Write::new(key, op) })
            }
            Request::Delete { key, ack } => {
                write(Write { ack, ..Write::new(key, WriteOp::Delete) })
            }
            Request::Conditional(conditional) => write(Write::conditional(*conditional)),
            request => {
                let message = RequestMessage { envelope, request };
                Admission::Node(NodeRequest::Message(connection, caller, message))
            }
        }
    }

    /// Handles a message of `caller`, a client or another node, that came alone, as over HTTP.
    pub async fn request(&self, caller: Caller, message: RequestMessage) -> Response {
        let connection = self.next_connection().single_use();
        match self.admit((connection, caller), message) {
            Admission::Complete(response) => response,
            Admission::Node(request) => self.respond(connection, request).await,
        }
    }

    /// Returns whether there are keys that other nodes own, or values on disk.
    #[must_use]
    pub fn may_read_elsewhere(&self) -> bool {
        self.reader.has_witnesses() || self.storage.has_disk()
    }

    /// Returns whether a read of a key has to wait for an owner or the disk.
    #[must_use]
    pub fn is_elsewhere(&self, key: &Key) -> bool {
        self.reader.is_witness(key.as_bytes())
            || self.storage.has_disk()
                && self.storage.find_on_disk(key.hash(), clock::now()).is_some()
    }

    /// Reads a key that other nodes own, there, or one whose value is on disk.
    pub async fn read_elsewhere(&self, key: Key) -> Response {
        let envelope = Envelope { cluster: self.cluster, ..Envelope::default() };
        let message = RequestMessage { envelope, request: Request::Get { key } };
        let connection = self.next_connection().single_use();
        let request = NodeRequest::Message(connection, Caller::unauthenticated(None), message);
        self.respond(connection, request).await
    }

    /// Writes an entry.
    ///
    /// # Cancellation
    /// Dropping the future abandons the response; the write stays.
    pub async fn write(&self, write: Write) -> Response {
        let connection = self.next_connection().single_use();
        self.respond(connection, NodeRequest::Write(write)).await
    }

    /// Returns a new name for a connection that begins.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Passes a request to the node and waits for its response, which is the only one on `connection`.
    /// Dropping the future abandons the response and ends the connection.
    async fn respond(&self, connection: ConnectionId, request: NodeRequest) -> Response {
        let (sender, receiver) = oneshot::channel();
        let id = self.submit(vec![(request, ReplyTo::Task(sender))]);
        let mut pending = PendingReply { driver: self, id, connection, is_received: false };
        let response = receiver.await;
        pending.is_received = true;
        response
            .unwrap_or_else(|_| Response::refused(RefusalCode::Overloaded, "the node is stopping"))
    }

    /// Passes requests to the node, which locks it once. Each gets its response at its destination, now
    /// or later. Returns the id of the first.
    pub(crate) fn submit(&self, requests: Vec<(NodeRequest, ReplyTo)>) -> RequestId {
        let count = requests.len() as u64;
        let first = self.next_request.fetch_add(count, Ordering::Relaxed);
        let ids = || (first..first + count).map(RequestId);
        let sizes = requests.iter().filter_map(|(request, _)| request.value_bytes());
        self.request_metrics.record_in(sizes);
        let started = clock::elapsed();
        let timed = |(request, to): (NodeRequest, ReplyTo)| {
            let timer = request.operation().map(|operation| (operation, started));
            (request, Some(Reply { to, timer }))
        };
        let (requests, mut replies): (Vec<_>, Vec<_>) = requests.into_iter().map(timed).unzip();
        let mut effects = Vec::new();
        let mut batch = ReplyBatch::new(&self.request_metrics);
        {
            let mut node = self.node.lock();
            let inputs = ids().zip(requests).map(|(id, request)| request.into_input(id));
            node.handle_all(clock::now(), inputs, &mut effects);
            self.publish(&node);
            effects.retain_mut(|effect| {
                let Effect::Respond { id, response } = effect else { return true };
                let index = id.0.checked_sub(first);
                let reply = index.and_then(|index| replies.get_mut(index as usize));
                let Some(reply) = reply.and_then(Option::take) else { return true };
                let response = std::mem::replace(response, Response::Done);
                if let Some((reply, response)) = self.hold(reply, response) {
                    batch.send_unflushed(reply, response);
                }
                false
            });
            // Under the lock of the node, so that no response comes before its destination is known.
            let later = ids().zip(replies).filter_map(|(id, reply)| Some((id, reply?)));
            self.pending.lock().extend(later);
        }
        self.perform(effects);
        if let Some(disk) = self.disk.as_ref().filter(|_| self.storage.is_disk_pressed()) {
            disk.wake_writer();
        }
        RequestId(first)
    }
}

/// A response that a task waits for. Dropping it early ends the connection of the request.
struct PendingReply<'a> {
    driver: &'a NodeDriver,
    id: RequestId,
    connection: ConnectionId,
    is_received: bool,
}

impl Drop for PendingReply<'_> {
    fn drop(&mut self) {
        if !self.is_received {
            self.driver.pending.lock().remove(&self.id);
            // Not handled here: this may be the end of the Tokio runtime, which takes no more calls.
            self.driver.closed.lock().push(self.connection);
            self.driver.timer.notify_one();
        }
    }
}
