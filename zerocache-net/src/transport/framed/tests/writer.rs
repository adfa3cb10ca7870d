//! What goes over a writer, in which order, and what is said of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use zerocache_core::wire::{Writer, frame::HEADER_BYTES};

use super::{
    Message, frames, header,
    sink::{Sink, Woken},
};
use crate::transport::framed::{
    reader::PARTIAL_MAX,
    writer::{Encode, Flush, FrameWriter, Withdrawal},
};

const LARGE: usize = 8 << 20;

pub(super) fn writer(sink: &Sink) -> FrameWriter {
    FrameWriter::new(Box::new(sink.clone()))
}

/// Does the flusher's work until nothing is left to do.
pub(super) fn drain(writer: &FrameWriter, waker: &Waker) {
    let context = Context::from_waker(waker);
    for _ in 0..10_000 {
        if writer.poll_flush(&context) != Poll::Ready(true) {
            return;
        }
        writer.flush();
    }
    panic!("there is always something to write");
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut Writer::new(&mut out));
    out.to_vec()
}

#[test]
fn messages_arrive_complete_and_small_ones_in_order() {
    let (sink, (_, waker)) = (Sink::endless(), Woken::waker());
    let writer = writer(&sink);
    let sizes = [0, 10, 65_537, 3, 200_000, 5];
    let messages = || (1..).zip(sizes).map(|(id, bytes)| (id, Message::of(id as u8, bytes)));
    for (id, message) in messages() {
        writer.send(header(id), &message, Flush::Later).unwrap();
    }
    writer.flush();
    drain(&writer, &waker);
    let frames = frames(&sink.taken());
    for (id, message) in messages() {
        let of: Vec<_> = frames.iter().filter(|(header, _)| header.id == id).collect();
        let last = of.iter().position(|(header, _)| !header.more);
        assert_eq!(last, Some(of.len() - 1), "message {id}");
        let payload: Vec<_> = of.iter().flat_map(|(_, payload)| payload.clone()).collect();
        assert!(payload == encoded(&message), "message {id}");
    }
    let small = frames.iter().map(|(header, _)| header.id).filter(|id| [1, 2, 4, 6].contains(id));
    assert_eq!(small.collect::<Vec<_>>(), [1, 2, 4, 6]);
    assert!(writer.is_flushed());
}

#[test]
fn small_message_overtakes_a_large_one() {
    // Room for one chunk and a part of the next one, which stops there.
    let (sink, (_, waker)) = (Sink::with_room(100 << 10), Woken::waker());
    let writer = writer(&sink);
    writer.send(header(1), &Message::of(1, LARGE), Flush::Now).unwrap();
    drain(&writer, &waker);
    assert_eq!(sink.taken().len(), 100 << 10);
    writer.send(header(2), &Message::of(2, 100), Flush::Soon).unwrap();
    sink.make_room(usize::MAX);
    drain(&writer, &waker);
    let frames = frames(&sink.taken());
    let at = frames.iter().position(|(header, _)| header.id == 2).unwrap();
    // Two chunks had begun; one more may go before it.
    assert!(at <= 3, "{at} chunks went before it");
    let payload: usize = frames.iter().map(|(_, payload)| payload.len()).sum();
    assert!(payload > LARGE && writer.is_flushed());
}

#[test]
fn large_messages_are_interleaved_within_a_bound() {
    let (sink, (_, waker)) = (Sink::endless(), Woken::waker());
    let writer = writer(&sink);
    let count = 2 * PARTIAL_MAX as u32;
    for id in 1..=count {
        writer.send(header(id), &Message::of(1, 150_000), Flush::Later).unwrap();
    }
    writer.flush();
    drain(&writer, &waker);
    let (mut under_way, mut most, mut ended) = (BTreeSet::new(), 0, 0);
    for (header, _) in frames(&sink.taken()) {
        if header.more {
            under_way.insert(header.id);
        } else {
            under_way.remove(&header.id);
            ended += 1;
        }
        most = most.max(under_way.len());
    }
    assert_eq!(ended, count);
    assert!((2..PARTIAL_MAX).contains(&most), "{most} were under way at once");
}

#[test]
fn withdrawn_message_is_not_sent() {
    let (sink, (_, waker)) = (Sink::with_room(80 << 10), Woken::waker());
    let writer = writer(&sink);
    for id in [1, 2, 3] {
        writer.send(header(id), &Message::of(1, 200_000), Flush::Later).unwrap();
    }
    writer.send(header(4), &Message::of(1, 10), Flush::Later).unwrap();
    drain(&writer, &waker);
    writer.flush();
    drain(&writer, &waker);
    assert!(!writer.is_unsent(1) && !writer.is_unsent(2) && writer.is_unsent(3));
    // One that has begun is not cut off by one who wants it back whole.
    assert!(!writer.withdraw_unsent(1));
    assert!(writer.withdraw_unsent(3) && !writer.is_unsent(3) && !writer.withdraw_unsent(3));
    assert_eq!(writer.withdraw(2), Withdrawal::Rest);
    assert_eq!(
        (writer.withdraw(2), writer.withdraw(4)),
        (Withdrawal::Nothing, Withdrawal::Nothing)
    );
    sink.make_room(usize::MAX);
    drain(&writer, &waker);
    let mut last = BTreeMap::new();
    for (header, _) in frames(&sink.taken()) {
        last.insert(header.id, header.more);
    }
    assert_eq!(last, BTreeMap::from([(1, false), (2, true), (4, false)]));
    assert!(writer.is_flushed());
}

#[test]
fn withdrawal_wakes_a_sender_that_waits_for_room() {
    let (sink, (woken, waker)) = (Sink::endless(), Woken::waker());
    let writer = writer(&sink);
    writer.send(header(1), &Message::of(1, LARGE), Flush::Later).unwrap();
    assert!(writer.is_full());
    assert!(writer.poll_room(&Context::from_waker(&waker)).is_pending());
    assert!(writer.withdraw_unsent(1));
    assert!(woken.take(), "nobody is notified of the room");
    assert!(writer.poll_room(&Context::from_waker(&waker)).is_ready());
}

#[test]
fn room_or_close_wakes_a_sender_that_waits_for_room() {
    let ((_, flusher), (woken, waker)) = (Woken::waker(), Woken::waker());
    let sink = Sink::with_room(0);
    let writer = writer(&sink);
    writer.send(header(1), &Message::of(1, LARGE), Flush::Now).unwrap();
    drain(&writer, &flusher);
    assert!(writer.poll_room(&Context::from_waker(&waker)).is_pending());
    sink.make_room(usize::MAX);
    drain(&writer, &flusher);
    assert!(woken.take() && writer.poll_room(&Context::from_waker(&waker)).is_ready());
    sink.make_room(0);
    writer.send(header(2), &Message::of(1, LARGE), Flush::Now).unwrap();
    assert!(writer.poll_room(&Context::from_waker(&waker)).is_pending());
    writer.close();
    assert!(woken.take() && writer.poll_room(&Context::from_waker(&waker)).is_ready());
}

#[test]
fn close_returns_what_the_stream_can_have_accepted() {
    let sink = Sink::with_room(30);
    let writer = writer(&sink);
    let small = Message::of(1, 10);
    let bytes = (HEADER_BYTES + encoded(&small).len()) as u64;
    let send = |id, flush| writer.send(header(id), &small, flush);
    assert_eq!(send(1, Flush::Now), Some(0));
    assert_eq!(send(2, Flush::Later), Some(bytes));
    assert_eq!(send(3, Flush::Later), Some(2 * bytes));
    assert_eq!(writer.close(), 30);
    assert!(writer.is_closed() && send(4, Flush::Now).is_none());
    assert_eq!(writer.close(), 30, "the second time");
}

#[test]
fn stream_error_closes_the_writer_and_wakes_the_flusher() {
    let (sink, (woken, waker)) = (Sink::with_room(0), Woken::waker());
    let writer = writer(&sink);
    let context = Context::from_waker(&waker);
    assert!(writer.poll_flush(&context).is_pending());
    sink.fail();
    writer.send(header(1), &Message::of(1, 10), Flush::Now).unwrap();
    assert!(woken.take() && writer.is_closed() && writer.is_flushed());
    assert_eq!(writer.poll_flush(&context), Poll::Ready(false));
    assert_eq!(writer.close(), 0);
}
