//! Streams that take output and keep it, as encrypted ones do.

use std::future::poll_fn;

use tokio::time::Instant;

use super::*;

/// A stream that takes every write into its own buffer. The peer reads nothing unless `reads`.
#[derive(Default)]
struct Buffering {
    reads: bool,
    is_shutdown: bool,
}

impl AsyncRead for Buffering {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The end of the input, once the peer knows of the end of the output.
        if self.is_shutdown { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Buffering {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reads { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shutdown = self.reads;
        if self.reads { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// The time of the paused clock.
fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}

fn guarded(stream: Buffering) -> GuardedIo<Buffering> {
    let limits = HttpLimits {
        write_window: Duration::from_secs(3),
        write_rate_min: 10,
        linger: Duration::from_secs(1),
        ..HttpLimits::default()
    };
    let permit = ConnectionPermit::acquire(&Arc::default(), 1, &Arc::default()).expect("a permit");
    GuardedIo::new(stream, Arc::new(limits), Arc::default(), Arc::default(), permit)
}

async fn write(io: &mut GuardedIo<Buffering>, bytes: &[u8]) {
    let written = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes)).await;
    assert_eq!(written.expect("taken"), bytes.len());
}

async fn flush(io: &mut GuardedIo<Buffering>) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await
}

#[tokio::test(start_paused = true)]
async fn pending_flush_of_a_client_that_does_not_read_ends_with_the_window() {
    let mut io = guarded(Buffering::default());
    let begun = now();
    write(&mut io, b"a response").await;
    let error = flush(&mut io).await.expect_err("nobody reads");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(io.counters.write_timeouts.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn output_that_is_taken_meanwhile_counts() {
    let mut io = guarded(Buffering::default());
    let begun = now();
    let pending = tokio::time::timeout(Duration::from_secs(1), flush(&mut io)).await;
    assert!(pending.is_err());
    write(&mut io, &[0; 30]).await;
    assert!(flush(&mut io).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 6, "one window with 30 bytes, one without");
}

#[tokio::test(start_paused = true)]
async fn completed_flush_ends_the_window() {
    let mut io = guarded(Buffering::default());
    let pending = tokio::time::timeout(Duration::from_secs(2), flush(&mut io)).await;
    assert!(pending.is_err());
    io.stream.reads = true;
    flush(&mut io).await.expect("flushed");
    io.stream.reads = false;
    let begun = now();
    assert!(flush(&mut io).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_the_linger_only() {
    for (reads, waited_s) in [(false, 1), (true, 0)] {
        let mut io = guarded(Buffering { reads, ..Buffering::default() });
        let begun = now();
        let ended = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await;
        assert!(ended.is_ok());
        assert_eq!((begun.elapsed().as_secs(), io.stream.is_shutdown), (waited_s, reads));
    }
}
