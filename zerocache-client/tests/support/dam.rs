//! A connection that shows which requests are on their way together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf};
use tokio::sync::Notify;

/// A connection to a node that holds the node's answers back, when told to, until so many more bytes
/// of requests have passed.
pub struct Dam {
    pub address: SocketAddr,
    /// What has to pass; none while nothing is held back.
    wanted: Arc<AtomicUsize>,
    is_closed: Arc<AtomicBool>,
    opened: Arc<Notify>,
}

impl Dam {
    pub async fn before(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let dam = Self {
            address: listener.local_addr().expect("it is bound"),
            wanted: Arc::default(),
            is_closed: Arc::default(),
            opened: Arc::default(),
        };
        let (wanted, is_closed, opened) =
            (Arc::clone(&dam.wanted), Arc::clone(&dam.is_closed), Arc::clone(&dam.opened));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(node).await else { continue };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let (wanted, opened) = (Arc::clone(&wanted), Arc::clone(&opened));
                tokio::spawn(requests(near_read, far_write, wanted, Arc::clone(&opened)));
                tokio::spawn(answers(far_read, near_write, Arc::clone(&is_closed), opened));
            }
        });
        dam
    }

    /// From now on no answer passes before so many bytes of requests have.
    pub fn close(&self, bytes: usize) {
        self.wanted.store(bytes, Ordering::SeqCst);
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wanted: Arc<AtomicUsize>,
    opened: Arc<Notify>,
) {
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let left = wanted.load(Ordering::SeqCst);
        wanted.store(left.saturating_sub(count), Ordering::SeqCst);
        if left > 0 && left <= count {
            opened.notify_waiters();
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_closed: Arc<AtomicBool>,
    opened: Arc<Notify>,
) {
    let mut buffer = [0; 65_536];
    loop {
        let waits = opened.notified();
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if is_closed.load(Ordering::SeqCst) {
            waits.await;
            is_closed.store(false, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
