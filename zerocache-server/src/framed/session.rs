//! One framed connection: the loop that reads requests and hands them on.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Sleep, sleep},
};
use zerocache_core::{
    access::{Denial, Operation},
    node::{self, ConnectionId, Cost},
    store::Lookup,
    time::Instant,
    wire::{
        Envelope, Refusal, RefusalCode, RequestMessage, Response,
        frame::{FrameError, Header, Opcode},
    },
};
use zerocache_net::{
    clock,
    transport::framed::{Flush, FrameReader, FrameWriter, Incoming},
};

use super::{FramedConnections, look_ahead::LookAhead};
use crate::{
    access::Caller,
    driver::{Admission, EncodedResponse, FramedReply, NodeRequest, ReplyTo, response_header},
    reads::ReadContext,
};

/// Most outstanding requests of one connection; more are refused.
const OUTSTANDING_MAX: usize = 16_384;

/// A connection on which nothing arrived for this long is closed, in milliseconds. Callers close theirs
/// much earlier.
const IDLE_MS_MAX: u64 = 75_000;

/// An incomplete frame or message of which nothing arrived for this long ends the connection, in
/// milliseconds.
const STALLED_MS_MAX: u64 = 10_000;

/// A message that is incomplete this long after its first frame ends the connection, in milliseconds,
/// whatever else arrives: it holds memory. As long as a body over HTTP may take.
const MESSAGE_MS_MAX: u64 = 60_000;

/// Buffers are released after this long without traffic, in milliseconds.
const QUIET_MS: u64 = 1_000;

/// The cost, as [`Cost`] defines it, at which the requests of a connection are handled before more are
/// read: it bounds one hold of the node's lock, and the growth of the pending responses. One request
/// may cost more, and is bounded itself.
const BATCH_COST_MAX: usize = 1 << 20;

/// The cost of a read on the fast path beyond the bytes of its entry.
const READ_COST: usize = 64;

/// Values and metadata up to this size are copied from the store to a connection under the lock of their
/// shard, in bytes, unless the store shares them: that takes a few microseconds at most.
const COPIED_BYTES_MAX: usize = 47 << 10;

/// Most bytes of the response to a read beyond value and metadata.
const FOUND_OVERHEAD_BYTES: usize = 64;

/// While the pending responses of all connections exceed their limit, a connection with this many pending
/// bytes is not read from.
const SCARCE_BYTES_MAX: usize = 64 << 10;

/// The progress of handling what was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Everything that was read is handled.
    Drained,
    /// One batch is handled; there may be more.
    BatchDone,
}

/// One connection.
pub(super) struct Session<'a> {
    shared: &'a FramedConnections,
    caller: Arc<Caller>,
    /// The connection, and who calls on it, as the state machine knows it.
    source: (ConnectionId, node::Caller),
    writer: Arc<FrameWriter>,
    /// The envelope that both sides know.
    known: Envelope,
    outstanding: Arc<AtomicUsize>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        shared: &'a FramedConnections,
        (connection, caller): (ConnectionId, Arc<Caller>),
        writer: Arc<FrameWriter>,
        known: Envelope,
    ) -> Self {
        let source = (connection, caller.to_core());
        Self { shared, caller, source, writer, known, outstanding: Arc::default() }
    }

    /// Reads and handles requests until the connection ends.
    pub(super) async fn run(self, mut stream: impl AsyncRead + Unpin, mut reader: FrameReader) {
        let mut last_read = clock::mono();
        let mut is_shrunk = false;
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut timer_at = Instant::default();
        loop {
            let progress = match self.handle_batch(&mut reader) {
                Ok(progress) => progress,
                Err(error) => {
                    self.shared.counters.bad_messages.add();
                    return tracing::debug!(%error, "connection closed: invalid frame");
                }
            };
            if progress == Progress::BatchDone {
                // Other connections run between two batches.
                tokio::task::yield_now().await;
            }
            if self.wait_for_room().await || progress == Progress::BatchDone {
                // The node caused the silence.
                last_read = clock::mono();
            }
            match progress {
                Progress::Drained => {}
                Progress::BatchDone if self.writer.is_closed() => return,
                Progress::BatchDone => continue,
            }
            let now = clock::mono();
            if reader.oldest_partial().is_some_and(|begun| now.since_ms(begun) >= MESSAGE_MS_MAX) {
                self.shared.counters.body_timeouts.add();
                return;
            }
            let silent_ms = now.since_ms(last_read);
            let silent_ms_max = if reader.is_incomplete() { STALLED_MS_MAX } else { IDLE_MS_MAX };
            if silent_ms >= silent_ms_max {
                self.shared.counters.idle_timeouts.add();
                return;
            }
            if silent_ms < QUIET_MS {
                is_shrunk = false;
            } else if !is_shrunk {
                reader.shrink();
                self.writer.shrink();
                is_shrunk = true;
            }
            let due = last_read.plus_ms(if is_shrunk { silent_ms_max } else { QUIET_MS });
            // Not set again for each read: a timer that fires early is set again.
            if due < timer_at || timer_at <= now {
                timer_at = due;
                timer.set(sleep(due.since(now)));
            }
            match next_read(&mut stream, &mut reader, timer.as_mut()).await {
                Some(0) => return,
                Some(_) => last_read = clock::mono(),
                None => timer_at = Instant::default(),
            }
        }
    }

    /// Waits until the peer has read enough of its responses. Returns whether that took time.
    async fn wait_for_room(&self) -> bool {
        let mut has_waited = false;
        poll_fn(|context| {
            let is_scarce = self.shared.pending_bytes() > self.shared.limits.pending_bytes_max;
            let bytes_max = if is_scarce { SCARCE_BYTES_MAX } else { usize::MAX };
            let room = self.writer.poll_room_within(context, bytes_max);
            has_waited |= room.is_pending();
            room
        })
        .await;
        has_waited
    }

    /// Answers complete requests, or passes them to the node, up to the cost of one batch; then writes.
    fn handle_batch(&self, reader: &mut FrameReader) -> Result<Progress, FrameError> {
        let driver = &self.shared.driver;
        let context = driver.reader().context();
        let now = context.now.mono;
        let mut batch = Batch::default();
        let mut progress = Progress::Drained;
        let mut has_read = false;
        let mut ahead = LookAhead::default();
        reader.peek_again();
        loop {
            ahead.prepare(reader, driver.reader());
            let Some((header, delay_ms, incoming)) = reader.next(now)? else { break };
            ahead.advance();
            has_read = true;
            let envelope = self.envelope(&header, delay_ms);
            let message = match incoming {
                Incoming::Nothing => {
                    if header.opcode == Opcode::Cancel {
                        self.cancel(header.id);
                    }
                    continue;
                }
                // The node makes no calls on a connection that others opened.
                _ if header.opcode == Opcode::Response => continue,
                Incoming::Refused(code) => {
                    self.refuse_message(header.id, code);
                    continue;
                }
                Incoming::Small(message) => match RequestMessage::peek_get(message) {
                    Some(key) => match self.fast_get(header.id, &envelope, key, context) {
                        Some(cost) => {
                            batch.count += 1;
                            batch.cost += cost;
                            None
                        }
                        None => Some(reader.take()),
                    },
                    None => Some(reader.take()),
                },
                Incoming::Large(message) => Some(message),
            };
            if let Some(message) = message {
                self.handle_message(&header, envelope, message, now, &mut batch);
            }
            if batch.cost >= BATCH_COST_MAX {
                progress = Progress::BatchDone;
                break;
            }
        }
        self.shared.counters.requests.add_many(batch.count);
        if !batch.requests.is_empty() {
            driver.submit(batch.requests);
        }
        if has_read {
            self.writer.flush();
        }
        Ok(progress)
    }

    fn envelope(&self, header: &Header, delay_ms: u64) -> Envelope {
        let (sent_ms, timeout_ms) = (u64::from(header.sent_ms), u64::from(header.timeout_ms));
        Envelope { sent_ms, timeout_ms, delay_ms, ..self.known }
    }

    /// Answers a Get straight from the store. Returns its cost; none if it is not answered, because other nodes own
    /// the key.
    fn fast_get(
        &self,
        id: u32,
        envelope: &Envelope,
        key: &[u8],
        context: ReadContext,
    ) -> Option<usize> {
        if envelope.remaining_ms().is_none() {
            self.refuse(
                id,
                RefusalCode::Expired,
                "the deadline passed before the request was read",
            );
            return Some(READ_COST);
        }
        if let Err(denial) = self.caller.grant.permits(Operation::Read(key)) {
            self.deny(id, denial);
            return Some(READ_COST);
        }
        let header = response_header(id, context.now.mono);
        let mut bytes = 0;
        let lookup = self.shared.driver.reader().read(key, context, |entry| {
            bytes = entry.value.len() + entry.metadata.len();
            if bytes > COPIED_BYTES_MAX || !entry.is_copied() {
                return Some(entry.to_entry());
            }
            let remaining_ms = entry.expires.since_ms(context.now.mono);
            self.writer.append(header, bytes + FOUND_OVERHEAD_BYTES, |out| {
                let (value, metadata) = (entry.value, entry.metadata);
                Response::encode_found(out, value, metadata, entry.version, remaining_ms);
            });
            None
        });
        let response = match lookup {
            Lookup::Hit(None) => return Some(READ_COST + bytes),
            Lookup::OnDisk => return None,
            Lookup::Miss { .. } if self.shared.driver.reader().is_witness(key) => return None,
            Lookup::Hit(Some(entry)) => context.response(Lookup::Hit(entry)),
            Lookup::Miss { known } => context.response(Lookup::Miss { known }),
        };
        self.writer.send(header, &EncodedResponse(&response), Flush::Later);
        Some(READ_COST + bytes)
    }

    /// Decodes a message and answers it, or adds it to the batch.
    fn handle_message(
        &self,
        header: &Header,
        envelope: Envelope,
        message: Bytes,
        now: Instant,
        batch: &mut Batch,
    ) {
        if self.outstanding.load(Ordering::Relaxed) >= OUTSTANDING_MAX {
            return self.refuse(
                header.id,
                RefusalCode::Overloaded,
                "too many outstanding requests",
            );
        }
        let message = match RequestMessage::decode_with_defaults(message, envelope, now) {
            Ok(message) => message,
            Err(error) => {
                self.shared.counters.bad_messages.add();
                return self.refuse(header.id, RefusalCode::BadMessage, &error.to_string());
            }
        };
        batch.count += 1;
        batch.cost += Cost::of(&message.request).total();
        if let Err(denial) = self.caller.grant.permits_message(&message) {
            return self.deny(header.id, denial);
        }
        match self.shared.driver.admit(self.source, message) {
            Admission::Complete(response) => self.send(header.id, &response),
            Admission::Node(request) => {
                let (writer, outstanding) =
                    (Arc::clone(&self.writer), Arc::clone(&self.outstanding));
                let reply = FramedReply::new(writer, header.id, outstanding);
                batch.requests.push((request, ReplyTo::Connection(reply)));
            }
        }
    }

    /// Replaces the response to a cancelled request by a short one, if nothing of it was sent.
    fn cancel(&self, id: u32) {
        if self.writer.withdraw_unsent(id) {
            self.refuse(id, RefusalCode::Expired, "cancelled");
        }
    }

    /// Refuses a request that the caller may not send.
    fn deny(&self, id: u32, denial: Denial) {
        let refusal = self.shared.access.refusal(self.caller.connection(), denial);
        self.send(id, &Response::Refused(refusal));
    }

    /// Refuses a message that was not read to its end. Only a value makes one too large.
    fn refuse_message(&self, id: u32, code: RefusalCode) {
        let value_bytes_max = self.shared.limits.value_bytes_max;
        let (value_bytes_max, text) = match code {
            RefusalCode::TooLarge => {
                let text =
                    format!("the value is too large; at most {value_bytes_max} bytes are allowed");
                (value_bytes_max, text)
            }
            _ => (0, "the node has no memory or no place for this message".to_owned()),
        };
        self.send(id, &Response::Refused(Refusal { code, text, wall_ms: 0, value_bytes_max }));
    }

    fn refuse(&self, id: u32, code: RefusalCode, text: &str) {
        self.send(id, &Response::refused(code, text));
    }

    fn send(&self, id: u32, response: &Response) {
        let header = response_header(id, clock::mono());
        self.writer.send(header, &EncodedResponse(response), Flush::Later);
    }
}

/// The requests that are handled together.
#[derive(Default)]
struct Batch {
    /// Requests for the node.
    requests: Vec<(NodeRequest, ReplyTo)>,
    /// All decoded requests, reads included.
    count: u64,
    /// The cost of all requests.
    cost: usize,
}

/// Waits for input, or for the timer; then returns none.
async fn next_read(
    stream: &mut (impl AsyncRead + Unpin),
    reader: &mut FrameReader,
    mut timer: Pin<&mut Sleep>,
) -> Option<usize> {
    let mut reading = pin!(stream.read_buf(reader.buffer()));
    poll_fn(|context| {
        if let Poll::Ready(read) = reading.as_mut().poll(context) {
            return Poll::Ready(Some(read.unwrap_or(0)));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}
