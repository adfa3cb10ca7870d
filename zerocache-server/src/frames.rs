//! The node's side of framed connections: reads requests in batches, answers reads at once, hands the
//! rest to the node, and writes what a batch gave with one write.
//!
//! Invariants: every request of which a frame has come is answered exactly once, or its connection
//! ends; a connection whose peer does not read is not read from either; all that a peer can make the
//! node hold is bounded.

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
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::watch,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use zerocache_core::{
    node::{ConnectionId, Cost, Input, ReadPolicy},
    time::{Instant, Now},
    wire::{
        Envelope, RefusalCode, RequestMessage, Response,
        frame::{FrameError, Header, Opcode},
    },
};
use zerocache_net::{
    clock,
    transport::framed::{Flush, FrameReader, FrameWriter, HANDSHAKE_ID, Incoming, MemoryBudget},
};

use crate::{
    driver::{Answer, FramedResponder, NodeDriver, Responder, response_header},
    telemetry::ServerCounters,
};

/// Most requests of one connection that are not answered yet; more are refused.
const OUTSTANDING_MAX: usize = 16_384;

/// A connection on which nothing came for this long is closed, in milliseconds. Callers close theirs
/// much earlier.
const IDLE_MS_MAX: u64 = 75_000;

/// A frame or message that has begun and of which nothing came for this long ends the connection, in
/// milliseconds.
const STALLED_MS_MAX: u64 = 10_000;

/// A message that is not whole this long after its first frame ends the connection, in milliseconds,
/// whatever else comes on it: it holds memory. As long as a body over HTTP may take.
const MESSAGE_MS_MAX: u64 = 60_000;

/// After this long without traffic buffers are given back, in milliseconds.
const QUIET_MS: u64 = 1_000;

/// Once the requests of a connection cost this much together, as [`Cost`] has it, they are answered before
/// more is taken: one hold of the node's lock, and what is added to the responses that wait. One
/// request alone may cost more, and is bounded itself.
const SLICE_COST_MAX: usize = 1 << 20;

/// What a plain read costs beyond the bytes of its entry.
const READ_COST: usize = 64;

/// While the responses that wait on all connections take more than their share of memory, a connection on
/// which so many bytes wait is not read from.
const SCARCE_BYTES_MAX: usize = 64 << 10;

/// How long the end of a node waits until the last responses are written.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the connections of a node share.
pub struct Frames {
    driver: Arc<NodeDriver>,
    counters: Arc<ServerCounters>,
    memory: Arc<dyn MemoryBudget>,
    limits: FrameLimits,
    /// Bytes of responses that wait on all connections.
    waiting_bytes: Arc<AtomicUsize>,
    tasks: Mutex<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

/// What the framed connections of a node may take.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The largest message, in bytes.
    pub message_bytes_max: usize,
    /// What responses that wait take on all connections together, in bytes, before each connection may
    /// have only a little of them.
    pub waiting_bytes_max: usize,
}

/// A connection that has just become a framed one.
pub struct Begun {
    /// What was read beyond the handshake.
    pub read: Bytes,
    /// When the caller sent its part of the upgrade, by its own clock.
    pub sent_ms: Option<u32>,
    /// What the handshake settled.
    pub known: Envelope,
    /// The node's answer to it.
    pub hello: Response,
}

impl Frames {
    /// Connections to `driver` within `limits`; large messages are charged to `memory`.
    #[must_use]
    pub fn new(
        driver: Arc<NodeDriver>,
        counters: Arc<ServerCounters>,
        memory: Arc<dyn MemoryBudget>,
        limits: FrameLimits,
    ) -> Arc<Self> {
        let (closing, _) = watch::channel(false);
        let (tasks, waiting_bytes) = (Mutex::default(), Arc::default());
        Arc::new(Self { driver, counters, memory, limits, waiting_bytes, tasks, closing })
    }

    /// Serves the connection that `stream` gives.
    pub fn serve<S>(
        self: &Arc<Self>,
        stream: impl Future<Output = Option<(S, Begun)>> + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let frames = Arc::clone(self);
        let mut closing = self.closing.subscribe();
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let Some((stream, begun)) = stream.await else { return };
            let (read, write) = tokio::io::split(stream);
            let line =
                Arc::new(FrameWriter::metered(Box::new(write), Arc::clone(&frames.waiting_bytes)));
            let mut inbox =
                FrameReader::new(frames.limits.message_bytes_max, Arc::clone(&frames.memory));
            if let Some(sent_ms) = begun.sent_ms {
                inbox.note_sent(sent_ms, clock::mono());
            }
            inbox.extend(&begun.read);
            line.send(
                response_header(HANDSHAKE_ID, clock::mono()),
                &Answer(&begun.hello),
                Flush::Now,
            );
            let connection = frames.driver.next_connection();
            let session = Session {
                frames: &frames,
                connection,
                line: Arc::clone(&line),
                known: begun.known,
                outstanding: Arc::default(),
            };
            tokio::select! {
                () = line.run() => {}
                () = session.read(read, inbox) => {}
                () = async { drop(closing.wait_for(|closing| *closing).await) } => {
                    let written = async {
                        while !line.is_flushed() {
                            line.flush();
                            sleep(Duration::from_millis(1)).await;
                        }
                    };
                    let _out_of_time = timeout(CLOSE_TIMEOUT, written).await;
                }
            }
            line.close();
            frames.driver.input(Input::ConnectionClosed(connection));
        });
    }

    /// How many bytes of responses wait on all connections.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Cuts all connections.
    pub fn abort(&self) {
        self.tasks.lock().abort_all();
    }

    /// Ends all connections, once what they were answered is written.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// How much of what has come is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    All,
    /// A slice; there may be more.
    Some,
}

/// One connection.
struct Session<'a> {
    frames: &'a Frames,
    connection: ConnectionId,
    line: Arc<FrameWriter>,
    known: Envelope,
    outstanding: Arc<AtomicUsize>,
}

impl Session<'_> {
    /// Reads and answers until the connection ends.
    async fn read(self, mut read: impl AsyncRead + Unpin, mut inbox: FrameReader) {
        let mut heard = clock::mono();
        let mut shrunk = false;
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut armed = Instant::default();
        loop {
            let answered = match self.answer(&mut inbox) {
                Ok(answered) => answered,
                Err(error) => {
                    self.frames.counters.bad_messages.add();
                    return tracing::debug!(%error, "connection closed: invalid frame");
                }
            };
            if answered == Answered::Some {
                // Others have their turn between two slices.
                tokio::task::yield_now().await;
            }
            if self.wait_for_room().await || answered == Answered::Some {
                // The silence was ours.
                heard = clock::mono();
            }
            match answered {
                Answered::All => {}
                Answered::Some if self.line.is_closed() => return,
                Answered::Some => continue,
            }
            let now = clock::mono();
            if inbox.oldest_partial().is_some_and(|begun| now.since_ms(begun) >= MESSAGE_MS_MAX) {
                self.frames.counters.body_timeouts.add();
                return;
            }
            let silent_ms = now.since_ms(heard);
            let patience_ms = if inbox.is_incomplete() { STALLED_MS_MAX } else { IDLE_MS_MAX };
            if silent_ms >= patience_ms {
                self.frames.counters.idle_timeouts.add();
                return;
            }
            if silent_ms < QUIET_MS {
                shrunk = false;
            } else if !shrunk {
                inbox.shrink();
                self.line.shrink();
                shrunk = true;
            }
            let due = heard.plus_ms(if shrunk { patience_ms } else { QUIET_MS });
            if due > armed {
                // Not for each read: a timer that is early looks again.
                if armed <= now {
                    armed = due;
                    timer.set(sleep(due.since(now)));
                }
            } else if due < armed {
                armed = due;
                timer.set(sleep(due.since(now)));
            }
            match next_read(&mut read, &mut inbox, timer.as_mut()).await {
                Some(0) => return,
                Some(_) => heard = clock::mono(),
                None => armed = Instant::default(),
            }
        }
    }

    /// Waits until the other side has read enough of its responses: who does not is not read from.
    /// Whether that took time.
    async fn wait_for_room(&self) -> bool {
        let mut waited = false;
        poll_fn(|context| {
            let is_scarce = self.frames.waiting_bytes() > self.frames.limits.waiting_bytes_max;
            let bytes_max = if is_scarce { SCARCE_BYTES_MAX } else { usize::MAX };
            let room = self.line.poll_room_within(context, bytes_max);
            waited |= room.is_pending();
            room
        })
        .await;
        waited
    }

    /// Answers what is whole, or hands it to the node, up to the cost of one slice; then writes.
    fn answer(&self, inbox: &mut FrameReader) -> Result<Answered, FrameError> {
        let now = clock::now();
        let answers = self.frames.driver.answers();
        let mut requests = Vec::new();
        let (mut any, mut reads, mut slice_cost) = (false, 0, 0);
        let mut answered = Answered::All;
        while let Some((header, delay_ms, incoming)) = inbox.next(now.mono)? {
            any = true;
            let envelope = self.envelope(&header, delay_ms);
            let message = match incoming {
                Incoming::Nothing => {
                    if header.opcode == Opcode::Cancel {
                        self.cancelled(header.id);
                    }
                    continue;
                }
                // Nothing is asked of the node itself on a connection that others opened.
                _ if header.opcode == Opcode::Response => continue,
                Incoming::Refused(code) => {
                    self.refuse(header.id, code, "the message is not taken");
                    continue;
                }
                Incoming::Small(message) => {
                    if let Some(key) = RequestMessage::peek_get(message) {
                        reads += 1;
                        slice_cost += self.read_at_once(&header, &envelope, key, (now, answers));
                        if slice_cost >= SLICE_COST_MAX {
                            answered = Answered::Some;
                            break;
                        }
                        continue;
                    }
                    inbox.take()
                }
                Incoming::Large(message) => message,
            };
            if let Some(request) = self.request(&header, envelope, message, now.mono) {
                slice_cost += Cost::of(&request.0.request).total();
                requests.push(request);
                if slice_cost >= SLICE_COST_MAX {
                    answered = Answered::Some;
                    break;
                }
            }
        }
        self.frames.counters.requests.add_many(reads);
        if !requests.is_empty() {
            self.frames.counters.requests.add_many(requests.len() as u64);
            self.frames.driver.answer_all(self.connection, requests);
        }
        if any {
            self.line.flush();
        }
        Ok(answered)
    }

    fn envelope(&self, header: &Header, delay_ms: u64) -> Envelope {
        let (sent_ms, timeout_ms) = (u64::from(header.sent_ms), u64::from(header.timeout_ms));
        Envelope { sent_ms, timeout_ms, delay_ms, ..self.known }
    }

    /// Answers a plain read. Returns what that cost.
    fn read_at_once(
        &self,
        header: &Header,
        envelope: &Envelope,
        key: &[u8],
        as_of: (Now, ReadPolicy),
    ) -> usize {
        if envelope.remaining_ms().is_none() {
            self.refuse(header.id, RefusalCode::Expired, "the deadline had passed");
            return READ_COST;
        }
        READ_COST + self.frames.driver.read_to(key, as_of, (&self.line, header.id))
    }

    /// The request in `message` with its place; none when it was refused.
    fn request(
        &self,
        header: &Header,
        envelope: Envelope,
        message: Bytes,
        now: Instant,
    ) -> Option<(RequestMessage, Responder)> {
        if self.outstanding.load(Ordering::Relaxed) >= OUTSTANDING_MAX {
            self.refuse(header.id, RefusalCode::Overloaded, "too many requests are under way");
            return None;
        }
        match RequestMessage::decode_with_defaults(message, envelope, now) {
            Ok(message) => {
                let (line, outstanding) = (Arc::clone(&self.line), Arc::clone(&self.outstanding));
                let place = FramedResponder::new(line, header.id, outstanding);
                Some((message, Responder::Framed(place)))
            }
            Err(error) => {
                self.frames.counters.bad_messages.add();
                self.refuse(header.id, RefusalCode::BadMessage, &error.to_string());
                None
            }
        }
    }

    /// A caller no longer wants a response: one that waits whole is replaced by a short one.
    fn cancelled(&self, id: u32) {
        if self.line.withdraw_unsent(id) {
            self.refuse(id, RefusalCode::Expired, "cancelled");
        }
    }

    fn refuse(&self, id: u32, code: RefusalCode, text: &str) {
        let response = Response::refused(code, text);
        self.line.send(response_header(id, clock::mono()), &Answer(&response), Flush::Later);
    }
}

/// Waits for input, or for the timer.
async fn next_read(
    read: &mut (impl AsyncRead + Unpin),
    inbox: &mut FrameReader,
    mut timer: Pin<&mut Sleep>,
) -> Option<usize> {
    let mut reading = pin!(read.read_buf(inbox.buffer()));
    poll_fn(|context| {
        if let Poll::Ready(read) = reading.as_mut().poll(context) {
            return Poll::Ready(Some(read.unwrap_or(0)));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}
