use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf},
    task::coop,
    time::timeout,
};
use zerocache_core::{
    call::CallFailure,
    key::Key,
    limits::Limits,
    ttl::Ttl,
    version::VersionSource,
    wire::{
        Ack, Envelope, RefusalCode, Request, RequestMessage, Response,
        frame::{Frame, Header, Opcode},
    },
};

use super::{
    model::{check, frame, in_frames, response},
    sink::Sink,
};
use crate::transport::framed::{
    FramedCall,
    connection::{Connection, drive},
    reader::{FrameReader, UnlimitedMemory},
};

/// Far more than any of this takes.
const LONG: Duration = Duration::from_secs(30);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { timeout(LONG, test).await.expect("an end") });
}

fn reader() -> FrameReader {
    FrameReader::new(100_000, Arc::new(UnlimitedMemory))
}

/// A connection and the stream at its other end.
fn connected(pipe_bytes: usize) -> (Arc<Connection>, DuplexStream) {
    let (near, far) = tokio::io::duplex(pipe_bytes);
    let (read, write) = tokio::io::split(near);
    let connection = Arc::new(Connection::new(Box::new(write), Envelope::default()));
    tokio::spawn(drive(Arc::clone(&connection), Box::new(read), reader()));
    (connection, far)
}

fn call(connection: &Arc<Connection>, request: Request) -> Option<FramedCall> {
    connection.call(RequestMessage { envelope: Envelope::default(), request }, LONG)
}

fn key() -> Key {
    Key::new("k".into(), &Limits::default()).unwrap()
}

fn put(bytes: usize) -> Request {
    let (value, ttl) = (Bytes::from(vec![1; bytes]), Ttl::from_millis(1_000).unwrap());
    Request::Put {
        key: key(),
        value,
        metadata: Bytes::new(),
        ttl,
        ack: Ack::Local,
        version: VersionSource::Accepted,
    }
}

fn check_found(number: usize, ended: Result<Response, CallFailure>) {
    assert!(matches!(ended, Ok(Response::Found { .. })), "{ended:?}");
    check(number, &ended);
}

/// Reads frames one by one.
struct Frames {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Some(frame) = Frame::parse(&self.read).unwrap() {
                let rest = self.read.split_off(frame.end);
                let whole = std::mem::replace(&mut self.read, rest);
                return (frame.header, whole[frame.payload_from..].to_vec());
            }
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the end");
        }
    }

    async fn respond(&mut self, id: u32, response: &Response) {
        for frame in in_frames(Opcode::Response, id, &response.encode(), 60_000, 0) {
            self.stream.write_all(&frame).await.unwrap();
        }
    }
}

#[test]
fn retired_connection_ends_with_its_last_call() {
    run(async {
        let (connection, stream) = connected(10_000);
        let mut frames = Frames { stream, read: Vec::new() };
        let waiting = call(&connection, Request::Ping).unwrap();
        let (asked, _) = frames.next().await;
        connection.retire();
        // The driver has looked at it when this call has ended.
        let other = call(&connection, Request::Ping).unwrap();
        let (other_asked, _) = frames.next().await;
        let found = Response::NotFound { warming: true, known: 0 };
        frames.respond(other_asked.id, &found).await;
        assert_eq!(other.await, Ok(found.clone()));
        assert!(!connection.is_closed());
        frames.respond(asked.id, &found).await;
        assert_eq!(waiting.await, Ok(found));
        let mut rest = Vec::new();
        assert_eq!(frames.stream.read_to_end(&mut rest).await.unwrap(), 0);
        assert!(connection.is_closed());
        let (idle, mut stream) = connected(10_000);
        idle.retire();
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
    });
}

#[test]
fn rest_of_a_request_that_was_refused_early_is_not_sent() {
    run(async {
        let (connection, stream) = connected(10_000);
        let mut frames = Frames { stream, read: Vec::new() };
        let large = call(&connection, put(4 << 20)).unwrap();
        let (first, _) = frames.next().await;
        assert!(first.more);
        let refusal = Response::refused(RefusalCode::TooLarge, "no");
        frames.respond(first.id, &refusal).await;
        assert_eq!(large.await, Ok(refusal));
        let next = call(&connection, Request::Get { key: key() }).unwrap();
        let mut chunks = 1;
        let (asked, cancelled) = loop {
            let (header, _) = frames.next().await;
            match header.opcode {
                Opcode::Request if header.id == first.id => chunks += 1,
                Opcode::Request => break (header.id, false),
                _ => {
                    assert_eq!((header.opcode, header.id), (Opcode::Cancel, first.id));
                    break (frames.next().await.0.id, true);
                }
            }
        };
        // What was on its way when the refusal came.
        assert!(cancelled && chunks <= 4, "{chunks} chunks");
        frames.respond(asked, &response(7, 100)).await;
        check_found(7, next.await);
        assert_eq!(connection.census(), ([0; 3], 0));
    });
}

#[test]
fn too_large_response_completes_its_call_with_its_last_frame() {
    run(async {
        let (connection, stream) = connected(1 << 20);
        let mut frames = Frames { stream, read: Vec::new() };
        let first = call(&connection, Request::Get { key: key() }).unwrap();
        let id = frames.next().await.0.id;
        let mut large = in_frames(Opcode::Response, id, &response(1, 150_000).encode(), 50_000, 0);
        let last = large.pop_back().unwrap();
        for frame in large {
            frames.stream.write_all(&frame).await.unwrap();
        }
        // Another call has its own response meanwhile.
        let second = call(&connection, Request::Get { key: key() }).unwrap();
        let other = frames.next().await.0.id;
        frames.respond(other, &response(2, 10)).await;
        check_found(2, second.await);
        assert_eq!(connection.census().0, [1, 0, 0]);
        frames.stream.write_all(&last).await.unwrap();
        assert_eq!(first.await, Err(CallFailure::NoAnswer));
        assert_eq!(connection.census(), ([0; 3], 0));
    });
}

#[test]
fn call_on_a_failed_stream_is_not_sent() {
    run(async {
        let sink = Sink::with_room(0);
        let connection = Arc::new(Connection::new(Box::new(sink.clone()), Envelope::default()));
        sink.fail();
        let first = call(&connection, put(10)).unwrap();
        assert!(connection.is_closed() && call(&connection, put(10)).is_none());
        assert_eq!(connection.census().0, [1, 0, 0]);
        drive(Arc::clone(&connection), Box::new(tokio::io::empty()), reader()).await;
        assert_eq!(first.await, Err(CallFailure::NotSent));
    });
}

#[test]
fn request_that_the_stream_accepted_in_part_may_have_been_sent() {
    run(async {
        let connection =
            Arc::new(Connection::new(Box::new(Sink::with_room(100)), Envelope::default()));
        // Too much for the stream; and behind it one of which it takes nothing.
        let calls = [put(500), put(10), put(1 << 20)].map(|put| call(&connection, put).unwrap());
        drive(Arc::clone(&connection), Box::new(tokio::io::empty()), reader()).await;
        let [first, second, third] = calls;
        assert_eq!(first.await, Err(CallFailure::NoAnswer));
        assert_eq!(second.await, Err(CallFailure::NotSent));
        assert_eq!(third.await, Err(CallFailure::NotSent));
        assert_eq!(connection.census().0, [0; 3]);
    });
}

/// A stream from which there is always something to read, as long as the task may go on.
struct Flood;

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if pin!(coop::consume_budget()).poll(context).is_pending() {
            return Poll::Pending;
        }
        let header =
            Header { opcode: Opcode::Other(77), more: false, id: 0, sent_ms: 0, timeout_ms: 0 };
        buf.put_slice(&frame(header, 0, &[]));
        Poll::Ready(Ok(()))
    }
}

#[test]
fn flooding_peer_delays_neither_deadlines_nor_writes() {
    run(async {
        let sink = Sink::with_room(10);
        let connection = Arc::new(Connection::new(Box::new(sink.clone()), Envelope::default()));
        let driver = tokio::spawn(drive(Arc::clone(&connection), Box::new(Flood), reader()));
        let limit = Duration::from_millis(20);
        let get = Request::Get { key: key() };
        let message = RequestMessage { envelope: Envelope::default(), request: get };
        let one = connection.call(message, limit).unwrap();
        assert_eq!(one.await, Err(CallFailure::NoAnswer));
        // The rest of it, and what came behind it.
        sink.make_room(usize::MAX);
        while connection.census().1 > 0 {
            tokio::task::yield_now().await;
        }
        let sent = super::frames(&sink.taken());
        let sent: Vec<_> = sent.iter().map(|(header, _)| header.opcode).collect();
        assert_eq!(sent, [Opcode::Request, Opcode::Cancel]);
        driver.abort();
    });
}

#[test]
fn silent_stream_with_overdue_calls_is_closed() {
    run(async {
        // As the system does with a link that is cut: it keeps what is sent.
        let (connection, _far) = connected(1 << 20);
        let soon = Duration::from_millis(200);
        loop {
            let message = RequestMessage { envelope: Envelope::default(), request: Request::Ping };
            let Some(ping) = connection.call(message, soon) else { break };
            assert_eq!(ping.await, Err(CallFailure::NoAnswer));
        }
    });
}

/// Starts `count` callers that read once and then `after`, and answers the first request of each with one
/// write.
async fn answered_together<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    after: impl Fn(usize, Arc<Connection>) -> F,
) -> (Arc<Connection>, Frames) {
    let (connection, stream) = connected(1 << 20);
    let mut frames = Frames { stream, read: Vec::new() };
    let mut ids = Vec::new();
    for number in 0..count {
        let first = call(&connection, Request::Ping).unwrap();
        let after = after(number, Arc::clone(&connection));
        tokio::spawn(async move {
            let _response = first.await;
            after.await;
        });
        ids.push(frames.next().await.0.id);
    }
    // They wait for their responses.
    tokio::task::yield_now().await;
    let found = Response::NotFound { warming: true, known: 0 }.encode();
    let responses = ids.iter().flat_map(|id| in_frames(Opcode::Response, *id, &found, 60_000, 0));
    let all: Vec<u8> = responses.flatten().collect();
    frames.stream.write_all(&all).await.unwrap();
    (connection, frames)
}

#[test]
fn callers_answered_together_send_together() {
    run(async {
        const CALLERS: usize = 20;
        let (_connection, mut frames) = answered_together(CALLERS, |_, connection| async move {
            let second = call(&connection, Request::Ping).unwrap();
            let _response = second.await;
        })
        .await;
        let mut chunk = Vec::with_capacity(1 << 16);
        frames.stream.read_buf(&mut chunk).await.unwrap();
        assert_eq!(super::frames(&chunk).len(), CALLERS);
    });
}

#[test]
fn request_of_the_only_caller_that_goes_on_is_sent() {
    run(async {
        let (_connection, mut frames) = answered_together(5, |number, connection| async move {
            if number == 2 {
                let second = call(&connection, Request::Get { key: key() }).unwrap();
                let _response = second.await;
            }
        })
        .await;
        assert_eq!(frames.next().await.0.opcode, Opcode::Request);
    });
}

#[test]
fn abandoned_request_of_a_gathering_is_cancelled() {
    run(async {
        let (connection, mut frames) = answered_together(5, |number, connection| async move {
            let second = call(&connection, Request::Get { key: key() }).unwrap();
            if number != 2 {
                // Its caller goes away before anything was written.
                return drop(second);
            }
            let _response = second.await;
        })
        .await;
        let mut seen = Vec::new();
        for _ in 0..9 {
            let (header, _) = frames.next().await;
            seen.push(header.opcode);
            if header.opcode == Opcode::Request {
                frames.respond(header.id, &response(1, 10)).await;
            }
        }
        let requests = seen.iter().filter(|opcode| **opcode == Opcode::Request);
        assert_eq!(requests.count(), 5);
        while connection.census().0 != [0; 3] {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn many_calls_are_sent_with_one_write() {
    run(async {
        let sink = Sink::endless();
        let connection = Arc::new(Connection::new(Box::new(sink.clone()), Envelope::default()));
        let messages = (0..100).map(|_| {
            let request = Request::Get { key: key() };
            RequestMessage { envelope: Envelope::default(), request }
        });
        let calls = connection.call_many(messages.collect(), LONG);
        assert!(calls.len() == 100 && calls.iter().all(Result::is_ok));
        assert_eq!(sink.writes(), 1);
        assert_eq!(super::frames(&sink.taken()).len(), 100);
        assert_eq!(connection.census().0, [100, 0, 0]);
    });
}
