//! A TCP proxy between a caller and a node, which may not support the upgrade, or cut its
//! connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::http;
use crate::setup::unique_address;

/// The first byte of an encrypted connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// The treatment of a request to upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradePolicy {
    /// Passes it on.
    Forward,
    /// Removes its headers, as HTTP permits each hop.
    Strip,
    /// Answers it itself with this status.
    Answer(u16),
    /// Passes it on and closes the connection when the answer comes.
    Cut,
    /// Forwards it after this delay, as a slow path does.
    ForwardAfter(Duration),
}

/// A proxy in front of one address. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    upgrades: UpgradePolicy,
    ended: AtomicBool,
    /// Requests for another protocol that came.
    upgrade_requests: AtomicUsize,
    accepted: AtomicUsize,
    /// Bytes of callers that were forwarded to the node, without the first head of each connection.
    forwarded: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy in front of `to`, on an address of its own.
    ///
    /// # Panics
    ///
    /// If it cannot listen.
    #[must_use]
    pub fn start(to: SocketAddr, upgrades: UpgradePolicy) -> Self {
        let listener = TcpListener::bind((unique_address(), 0)).expect("bound");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            to,
            upgrades,
            ended: AtomicBool::default(),
            upgrade_requests: AtomicUsize::default(),
            accepted: AtomicUsize::default(),
            forwarded: AtomicUsize::default(),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                accepting.accepted.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&accepting);
                // A connection that fails is one that ends.
                std::thread::spawn(move || drop(shared.carry(from)));
            }
        });
        Self { address, shared }
    }

    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of requests to upgrade.
    #[must_use]
    pub fn upgrade_requests(&self) -> usize {
        self.shared.upgrade_requests.load(Ordering::Relaxed)
    }

    /// Returns the number of accepted connections.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of callers were forwarded, without the first head of each connection.
    #[must_use]
    pub fn forwarded(&self) -> usize {
        self.shared.forwarded.load(Ordering::Relaxed)
    }

    /// Cuts all connections that are open.
    pub fn cut(&self) {
        for stream in self.shared.streams().drain(..) {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the listener.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection; only its first request can ask for another protocol.
    fn carry(&self, mut from: TcpStream) -> io::Result<()> {
        let to = TcpStream::connect_timeout(&self.to, Duration::from_secs(5))?;
        to.set_nodelay(true)?;
        from.set_nodelay(true)?;
        self.streams().extend([from.try_clone()?, to.try_clone()?]);
        let mut first = Vec::new();
        let mut room = [0; 4096];
        let (head, body) = loop {
            if let Some((head, body)) = http::split(&first) {
                break (head, body.to_vec());
            }
            let count = from.read(&mut room)?;
            if count == 0 {
                return Ok(());
            }
            first.extend_from_slice(&room[..count]);
            if first[0] == TLS_HANDSHAKE {
                // Nothing in it can be read.
                (&to).write_all(&first)?;
                let back = (to.try_clone()?, from.try_clone()?);
                std::thread::spawn(move || pump(back, None));
                pump((from, to), Some(&self.forwarded));
                return Ok(());
            }
        };
        let wants_upgrade = http::header(&head, "upgrade").is_some();
        self.upgrade_requests.fetch_add(usize::from(wants_upgrade), Ordering::Relaxed);
        let kept = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            !(self.upgrades == UpgradePolicy::Strip
                && wants_upgrade
                && ["upgrade", "connection"].iter().any(|hop| name.eq_ignore_ascii_case(hop)))
        };
        if let (UpgradePolicy::Answer(status), true) = (self.upgrades, wants_upgrade) {
            let answer =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            from.write_all(answer.as_bytes())?;
            return from.shutdown(Shutdown::Both);
        }
        if let UpgradePolicy::ForwardAfter(later) = self.upgrades {
            std::thread::sleep(later);
        }
        let lines: Vec<&str> = head.lines().filter(kept).collect();
        let head = format!("{}\r\n\r\n", lines.join("\r\n"));
        (&to).write_all(&[head.as_bytes(), &body].concat())?;
        let back = (to.try_clone()?, from.try_clone()?);
        let cut = wants_upgrade && self.upgrades == UpgradePolicy::Cut;
        std::thread::spawn(move || if cut { cut_at_answer(back) } else { pump(back, None) });
        pump((from, to), Some(&self.forwarded));
        Ok(())
    }
}

/// Copies bytes in one direction until either side ends, then ends both. Counts them in `count`.
fn pump((mut from, mut to): (TcpStream, TcpStream), count: Option<&AtomicUsize>) {
    let mut room = [0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut room) {
        if to.write_all(&room[..read]).is_err() {
            break;
        }
        if let Some(count) = count {
            count.fetch_add(read, Ordering::Relaxed);
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn cut_at_answer((mut from, to): (TcpStream, TcpStream)) {
    let _ended = from.read(&mut [0; 1]);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
