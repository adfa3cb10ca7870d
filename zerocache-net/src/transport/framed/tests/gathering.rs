//! Requests that wait for others, and how long.

use std::{task::Context, time::Duration};

use super::{
    Message, frames, header,
    sink::{Sink, Woken},
    writer::{drain, writer},
};
use crate::transport::framed::writer::{FrameWriter, GATHERING_MAX};

/// When the gatherings of these tests begin.
const BEGIN: Duration = Duration::from_secs(1);

/// A moment soon after the begin.
const SOON: Duration = Duration::from_micros(1_000_001);

fn send(writer: &FrameWriter, id: u32, at: Duration) {
    writer.send_gathered(header(id), &Message::of(1, 10), (false, at)).expect("an open writer");
}

/// The ids of what the sink took, and with how many writes.
fn sent(sink: &Sink) -> (Vec<u32>, usize) {
    (frames(&sink.taken()).iter().map(|(header, _)| header.id).collect(), sink.writes())
}

#[test]
fn last_expected_sender_writes_for_all() {
    let sink = Sink::endless();
    let writer = writer(&sink);
    assert!(writer.expect(3, BEGIN));
    send(&writer, 1, SOON);
    // A sender may have begun before the responses came.
    send(&writer, 2, BEGIN / 2);
    assert_eq!(sent(&sink), (vec![], 0));
    send(&writer, 3, SOON);
    assert_eq!(sent(&sink), (vec![1, 2, 3], 1));
    // One that nobody expected.
    send(&writer, 4, SOON);
    assert_eq!(sent(&sink).1, 1);
    writer.end_gathering(SOON);
    assert_eq!(sent(&sink), (vec![1, 2, 3, 4], 2));
}

#[test]
fn requests_of_fewer_senders_than_expected_are_written_at_the_end() {
    let ((woken, waker), sink) = (Woken::waker(), Sink::endless());
    let writer = writer(&sink);
    drain(&writer, &waker);
    assert!(writer.expect(10, BEGIN));
    send(&writer, 1, SOON);
    writer.flush_soon();
    assert!(sink.writes() == 0 && !woken.take(), "the driver comes by itself");
    writer.end_gathering(SOON);
    assert_eq!(sent(&sink), (vec![1], 1));
    // Without a gathering the flusher is woken.
    send(&writer, 2, SOON);
    assert!(sink.writes() == 1 && woken.take());
    drain(&writer, &waker);
    assert_eq!(sent(&sink), (vec![1, 2], 2));
}

#[test]
fn sender_writes_when_the_longest_wait_is_over() {
    let sink = Sink::endless();
    let writer = writer(&sink);
    assert!(writer.expect(100, BEGIN));
    let mut at = BEGIN;
    for id in 1..=40 {
        send(&writer, id, at);
        at += GATHERING_MAX / 10;
    }
    // Each write takes what ten of them sent.
    assert_eq!(sent(&sink), ((1..=31).collect(), 3));
    writer.end_gathering(at);
    assert_eq!(sent(&sink), ((1..=40).collect(), 4));
}

#[test]
fn sender_after_a_task_that_computed_writes_at_once() {
    let sink = Sink::endless();
    let writer = writer(&sink);
    assert!(writer.expect(4, BEGIN));
    send(&writer, 1, SOON);
    let late = BEGIN + GATHERING_MAX * 2;
    send(&writer, 2, late);
    assert_eq!(sent(&sink), (vec![1, 2], 1));
    send(&writer, 3, late);
    assert_eq!(sink.writes(), 1);
    writer.end_gathering(late);
    assert_eq!(sent(&sink), (vec![1, 2, 3], 2));
}

#[test]
fn first_sender_writes_at_once_after_an_interrupted_gathering() {
    let (sink, (_, waker)) = (Sink::endless(), Woken::waker());
    let writer = writer(&sink);
    drain(&writer, &waker);
    assert!(writer.expect(3, BEGIN));
    send(&writer, 1, SOON);
    // Others computed before the driver ran again.
    let mut at = BEGIN + GATHERING_MAX * 2;
    writer.end_gathering(at);
    assert!(!writer.expect_others(at), "senders that nobody announced do not wait either");
    let mut writes = sink.writes();
    assert!(writer.expect(20, at));
    send(&writer, 2, at);
    assert_eq!(sink.writes(), writes, "many wait for each other");
    writer.end_gathering(at);
    writes += 1;
    let mut prompt = 0;
    loop {
        assert!(writer.expect(3, at));
        send(&writer, 2, at);
        if sink.writes() == writes {
            break;
        }
        prompt += 1;
        // The others wait for each other.
        send(&writer, 3, at);
        assert_eq!(sink.writes(), writes + 1);
        writer.end_gathering(at);
        writes = sink.writes();
        at += Duration::from_millis(1);
    }
    assert!((1..30).contains(&prompt), "cautious {prompt} times");
    writer.end_gathering(at);
    assert!(writer.expect_others(at));
}

#[test]
fn only_caller_that_was_woken_writes_at_once() {
    let ((woken, waker), sink) = (Woken::waker(), Sink::endless());
    let writer = writer(&sink);
    drain(&writer, &waker);
    assert!(!writer.expect(0, BEGIN) && !writer.expect(1, BEGIN), "the driver continues");
    send(&writer, 1, SOON);
    assert_eq!(sent(&sink), (vec![1], 1));
    send(&writer, 2, SOON);
    assert!(sink.writes() == 1 && woken.take());
    // One that waits for nobody's response joins nobody.
    writer.send_gathered(header(3), &Message::of(1, 10), (true, SOON)).unwrap();
    assert_eq!(sent(&sink), (vec![1, 2, 3], 2));
}

#[test]
fn gathering_ends_on_a_stream_that_accepts_nothing() {
    let (sink, (woken, waker)) = (Sink::with_room(0), Woken::waker());
    let writer = writer(&sink);
    drain(&writer, &waker);
    assert!(writer.expect(2, BEGIN));
    send(&writer, 1, SOON);
    writer.end_gathering(SOON);
    assert!(writer.expect(2, BEGIN));
    send(&writer, 2, SOON);
    send(&writer, 3, SOON);
    writer.end_gathering(SOON);
    drain(&writer, &waker);
    assert_eq!(sink.writes(), 0);
    sink.make_room(usize::MAX);
    assert!(woken.take(), "the stream accepts more");
    drain(&writer, &waker);
    assert_eq!(sent(&sink).0, [1, 2, 3]);
}

#[test]
fn large_request_joins_a_gathering() {
    let (sink, (_, waker)) = (Sink::endless(), Woken::waker());
    let writer = writer(&sink);
    drain(&writer, &waker);
    assert!(writer.expect(2, BEGIN));
    writer.send_gathered(header(1), &Message::of(1, 200_000), (false, SOON)).unwrap();
    assert_eq!(sink.writes(), 0);
    send(&writer, 2, SOON);
    assert!(sink.writes() > 0);
    writer.end_gathering(SOON);
    drain(&writer, &waker);
    let last = frames(&sink.taken()).into_iter().filter(|(header, _)| !header.more);
    assert_eq!(last.map(|(header, _)| header.id).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn closed_writer_gathers_nothing() {
    let sink = Sink::endless();
    let writer = writer(&sink);
    assert!(writer.expect(2, BEGIN));
    send(&writer, 1, SOON);
    writer.close();
    assert!(writer.send_gathered(header(2), &Message::of(1, 10), (false, SOON)).is_none());
    writer.end_gathering(SOON);
    assert_eq!(sink.writes(), 0);
    assert!(writer.poll_flush(&Context::from_waker(std::task::Waker::noop())).is_ready());
}
