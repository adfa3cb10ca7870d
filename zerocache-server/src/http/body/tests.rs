//! Bodies that are too long, too slow, incomplete, or too many.

use std::convert::Infallible;

use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::*;

fn budget(memory_bytes: u64) -> BodyBudget {
    let limits = BodyLimits {
        total_time: Duration::from_secs(60),
        window: Duration::from_secs(5),
        rate_min: 100,
        memory_bytes,
    };
    BodyBudget::new(limits, Arc::default())
}

/// A body of unknown length whose pieces the test sends.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[tokio::test]
async fn memory_is_charged_until_the_bytes_are_dropped() {
    let budget = budget(64 << 10);
    let body = Bytes::from(vec![7; 20_000]);
    let read = read_body(Full::new(body.clone()), 1 << 20, &budget).await.expect("a body");
    assert_eq!(read, body);
    let clone = read.clone();
    drop(read);
    assert_eq!(budget.free_bytes(), (64 - 20) << 10);
    let refused = read_body(Full::new(Bytes::from(vec![7; 50_000])), 1 << 20, &budget).await;
    assert_eq!(refused, Err(BodyError::NoMemory));
    drop(clone);
    assert_eq!(budget.free_bytes(), 64 << 10);
    assert_eq!(budget.counters.bodies_over_memory.get(), 1);
}

#[tokio::test]
async fn small_announced_bodies_are_read_when_the_budget_is_used_up() {
    let budget = budget(1 << 10).exempting(100);
    let all = read_body(Full::new(Bytes::from(vec![7; 1_000])), 1 << 20, &budget).await;
    assert!(all.is_ok() && budget.free_bytes() == 0);
    let small = read_body(Full::new(Bytes::from(vec![7; 100])), 1 << 20, &budget).await;
    assert_eq!(small.map(|bytes| bytes.len()), Ok(100));
    let larger = read_body(Full::new(Bytes::from(vec![7; 101])), 1 << 20, &budget).await;
    assert_eq!(larger, Err(BodyError::NoMemory));
    let (send, pieces) = mpsc::channel(1);
    send.send(Bytes::from_static(b"not announced")).await.expect("room");
    assert_eq!(read_body(Pieces(pieces), 1 << 20, &budget).await, Err(BodyError::NoMemory));
}

#[tokio::test]
async fn size_limit_holds_whether_the_length_is_announced_or_not() {
    let budget = budget(1 << 20);
    let exact = read_body(Full::new(Bytes::from_static(b"12345")), 5, &budget).await;
    assert_eq!(exact.as_deref(), Ok(&b"12345"[..]));
    drop(exact);
    let announced = read_body(Full::new(Bytes::from_static(b"123456")), 5, &budget).await;
    assert_eq!(announced, Err(BodyError::TooLarge { bytes_max: 5 }));
    let (send, pieces) = mpsc::channel(4);
    send.send(Bytes::from_static(b"123")).await.expect("room");
    send.send(Bytes::from_static(b"456")).await.expect("room");
    // The sender stays open: the limit is enforced before the end is seen.
    assert_eq!(
        read_body(Pieces(pieces), 5, &budget).await,
        Err(BodyError::TooLarge { bytes_max: 5 })
    );
    assert_eq!(budget.free_bytes(), 1 << 20);
    let empty = read_body(Full::new(Bytes::new()), 5, &budget).await;
    assert_eq!(empty, Ok(Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn dripping_body_is_refused_after_one_window() {
    let budget = budget(1 << 20);
    let (send, pieces) = mpsc::channel(4);
    let drip = tokio::spawn(async move {
        while send.send(Bytes::from_static(b"x")).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(read_body(Pieces(pieces), 1 << 20, &budget).await, Err(BodyError::TooSlow));
    assert_eq!(budget.counters.body_timeouts.get(), 1);
    drip.await.expect("the drip ends");
}

#[tokio::test(start_paused = true)]
async fn total_time_is_bounded_at_any_rate() {
    let budget = budget(1 << 20);
    let (send, pieces) = mpsc::channel(4);
    let steady = tokio::spawn(async move {
        let mut sent: u64 = 0;
        while send.send(Bytes::from_static(&[0; 200])).await.is_ok() {
            sent += 1;
            sleep(Duration::from_secs(1)).await;
        }
        sent
    });
    assert_eq!(read_body(Pieces(pieces), 1 << 20, &budget).await, Err(BodyError::TooSlow));
    let sent = steady.await.expect("the sender ends");
    assert!((55..=66).contains(&sent), "{sent} pieces in 60 s");
}

#[tokio::test]
async fn error_of_the_stream_is_an_incomplete_body() {
    let budget = budget(1 << 20);
    let broken = pieces(vec![Ok(Frame::data(Bytes::from_static(b"ab"))), Err("cut")]);
    assert_eq!(read_body(broken, 10, &budget).await, Err(BodyError::Incomplete));
    assert_eq!(budget.counters.bodies_incomplete.get(), 1);
}

type Piece = Result<Frame<Bytes>, &'static str>;

fn pieces(pieces: Vec<Piece>) -> impl Body<Data = Bytes, Error = &'static str> {
    StreamBody::new(futures_util::stream::iter(pieces))
}
