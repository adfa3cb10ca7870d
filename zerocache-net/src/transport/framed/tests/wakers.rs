//! Who writes, who waits, and who is woken.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Barrier, OnceLock, Weak},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWrite};
use zerocache_core::wire::frame::Frame;

use super::{
    Message, frames, header,
    sink::{Sink, Woken},
    writer::{drain, writer},
};
use crate::transport::framed::writer::{Flush, FrameWriter};

#[test]
fn late_flusher_finds_the_pending_flush() {
    let (woken, waker) = Woken::waker();
    let context = Context::from_waker(&waker);
    let sink = Sink::endless();
    let wanted = writer(&sink);
    wanted.send(header(1), &Message::of(1, 10), Flush::Soon).unwrap();
    assert_eq!(wanted.poll_flush(&context), Poll::Ready(true));
    wanted.flush();
    assert!(wanted.is_flushed() && wanted.poll_flush(&context).is_pending());
    wanted.send(header(2), &Message::of(1, 10), Flush::Soon).unwrap();
    assert!(woken.take(), "a flush is wanted");

    let sink = Sink::with_room(5);
    let blocked = writer(&sink);
    blocked.send(header(1), &Message::of(1, 10), Flush::Now).unwrap();
    assert!(blocked.poll_flush(&context).is_pending());
    sink.make_room(usize::MAX);
    assert!(woken.take(), "the stream takes more");
    drain(&blocked, &waker);
    assert!(blocked.is_flushed());
}

/// A stream that takes nothing, and to whose writer a flusher comes at that moment.
struct Late {
    writer: Arc<OnceLock<Weak<FrameWriter>>>,
    flusher: Waker,
}

impl AsyncWrite for Late {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        let writer = self.writer.get().and_then(Weak::upgrade).unwrap();
        assert!(writer.poll_flush(&Context::from_waker(&self.flusher)).is_pending());
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn flusher_registered_during_a_write_learns_that_the_stream_is_blocked() {
    let (woken, flusher) = Woken::waker();
    let place = Arc::new(OnceLock::new());
    let writer = Arc::new(FrameWriter::new(Box::new(Late { writer: Arc::clone(&place), flusher })));
    place.set(Arc::downgrade(&writer)).unwrap();
    writer.send(header(1), &Message::of(1, 10), Flush::Now).unwrap();
    assert!(woken.take(), "the stream knows of no flusher, and the flusher of no stream");
}

#[test]
fn buffering_stream_is_flushed_until_it_is_empty() {
    let (sink, (woken, waker)) = (Sink::endless(), Woken::waker());
    sink.hold_flush(true);
    let writer = writer(&sink);
    drain(&writer, &waker);
    writer.send(header(1), &Message::of(1, 10), Flush::Now).unwrap();
    let first = sink.taken().len();
    assert!(first > 0 && sink.is_awaited());
    // What is sent meanwhile is not lost.
    writer.send(header(2), &Message::of(1, 10), Flush::Soon).unwrap();
    drain(&writer, &waker);
    assert_eq!(sink.taken().len(), first);
    sink.hold_flush(false);
    assert!(woken.take());
    drain(&writer, &waker);
    assert!(sink.taken().len() == 2 * first && writer.is_flushed() && !sink.is_awaited());
}

#[test]
fn threads_send_concurrently() {
    const THREADS: u32 = 4;
    const MESSAGES: u32 = 500;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let received = runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(10_000);
        let writer = Arc::new(FrameWriter::new(Box::new(near)));
        let flusher = tokio::spawn({
            let writer = Arc::clone(&writer);
            async move { writer.run().await }
        });
        let threads = (0..THREADS).map(|sender| {
            let writer = Arc::clone(&writer);
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let bytes = if number % 100 == 7 { 70_000 } else { number as usize };
                    let flush = if number % 3 == 0 { Flush::Soon } else { Flush::Now };
                    let id = sender * MESSAGES + number;
                    writer.send(header(id), &Message::of(sender as u8, bytes), flush).unwrap();
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        let mut received = Vec::new();
        let mut ended = 0;
        let reading = async {
            let mut seen = 0;
            while ended < THREADS * MESSAGES {
                assert!(far.read_buf(&mut received).await.unwrap() > 0);
                while let Some(frame) = Frame::parse(&received[seen..]).unwrap() {
                    ended += u32::from(!frame.header.more);
                    seen += frame.end;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("all arrive");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        writer.close();
        flusher.await.unwrap();
        received
    });
    let small = frames(&received).into_iter().map(|(header, _)| header.id);
    let small: Vec<_> = small.filter(|id| id % MESSAGES % 100 != 7).collect();
    for thread in 0..THREADS {
        let of: Vec<_> = small.iter().filter(|id| **id / MESSAGES == thread).collect();
        assert!(of.len() as u32 == MESSAGES / 100 * 99 && of.is_sorted(), "thread {thread}");
    }
}

#[test]
fn message_is_withdrawn_or_sent_as_a_whole() {
    for _ in 0..300 {
        let (sink, (_, waker)) = (Sink::endless(), Woken::waker());
        let writer = writer(&sink);
        writer.send(header(1), &Message::of(1, 150_000), Flush::Later).unwrap();
        let begin = Barrier::new(2);
        let withdrawn = thread::scope(|threads| {
            let withdrawing = threads.spawn(|| {
                begin.wait();
                writer.withdraw_unsent(1)
            });
            begin.wait();
            writer.flush();
            withdrawing.join().unwrap()
        });
        drain(&writer, &waker);
        let last = frames(&sink.taken()).last().map(|(header, _)| header.more);
        assert_eq!(last, (!withdrawn).then_some(false));
    }
}
