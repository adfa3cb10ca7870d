//! Calls from runtimes and threads of all kinds, to a node that answers everything with the same.

#[cfg(all(feature = "tls", feature = "http-fallback"))]
mod secured;

use std::{
    future::Future,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};
use zerocache_core::{
    call::CallFailure,
    key::Key,
    limits::Limits,
    time::Instant,
    version::Incarnation,
    wire::{
        Envelope, Hello, NodeInfo, NodeState, Request, RequestMessage, Response, frame::Opcode,
    },
};

use super::{
    FramedTransport, Transport,
    framed::{
        FrameReader, HANDSHAKE_ID, Incoming, UPGRADE_TOKEN, UnlimitedMemory,
        tests::model::in_frames,
    },
};

/// Far more than any of this takes.
const LONG: Duration = Duration::from_secs(20);

const ANSWER: Response = Response::NotFound { warming: true, known: 0 };

/// A node on a thread for each connection; `answers` says whether it does.
fn node(answers: bool) -> SocketAddr {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // Both end with the process: nothing but the test connects to them.
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || serve(stream, address, answers));
        }
    });
    address
}

fn serve(mut stream: TcpStream, address: SocketAddr, answers: bool) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0].to_ascii_lowercase());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()])?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {UPGRADE_TOKEN}\r\n\r\n"
    )?;
    respond(&mut stream, HANDSHAKE_ID, &hello(Some(address)))?;
    let mut reader = FrameReader::new(1 << 20, Arc::new(UnlimitedMemory));
    let mut room = [0; 4096];
    loop {
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        reader.extend(&room[..count]);
        while let Ok(Some((header, _, incoming))) = reader.next(Instant::default()) {
            if answers && matches!(incoming, Incoming::Small(_)) {
                respond(&mut stream, header.id, &ANSWER)?;
            }
        }
    }
}

fn respond(stream: &mut TcpStream, id: u32, response: &Response) -> io::Result<()> {
    let frames = in_frames(Opcode::Response, id, &response.encode(), 60_000, 0);
    stream.write_all(&frames.into_iter().flatten().collect::<Vec<_>>())
}

fn hello(node: Option<SocketAddr>) -> Response {
    Response::Hello(Box::new(said(node)))
}

fn said(node: Option<SocketAddr>) -> Hello {
    let node = node.map(|address| NodeInfo {
        incarnation: Incarnation(1),
        region: "a".into(),
        zone: None,
        addresses: vec![address],
        state: NodeState::Warming,
        bytes_max: 1,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    });
    Hello { node, ..Hello::of_client("c", "a", 0) }
}

fn message(request: Request) -> RequestMessage {
    RequestMessage { envelope: Envelope { cluster: 1, ..Envelope::default() }, request }
}

fn get() -> RequestMessage {
    message(Request::Get { key: Key::new("k".into(), &Limits::default()).unwrap() })
}

/// A transport and its home.
fn transport() -> (FramedTransport, Runtime) {
    let home = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let make_hello = Arc::new(|| message(Request::Hello(Box::new(said(None)))));
    let transport = FramedTransport::new(make_hello, LONG, home.handle().clone());
    (transport, home)
}

/// Unparks a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on no runtime at all.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return ended;
        }
        thread::park_timeout(LONG);
    }
}

#[test]
fn calls_work_from_any_runtime_and_thread() {
    let (to, (transport, home)) = (node(true), transport());
    let call = |transport: &FramedTransport| transport.call(to, get(), LONG);
    // The first one connects.
    for _ in 0..2 {
        assert_eq!(block_on(call(&transport)), Ok(ANSWER), "on no runtime");
        assert_eq!(home.block_on(async { call(&transport).await }), Ok(ANSWER), "at home");
        let other = Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(other.block_on(async { call(&transport).await }), Ok(ANSWER), "on another one");
        let blocking = transport.clone();
        let blocking = home.spawn_blocking(move || block_on(blocking.call(to, get(), LONG)));
        assert_eq!(home.block_on(blocking).unwrap(), Ok(ANSWER), "on a thread that may block");
        let unable = Builder::new_current_thread().build().unwrap();
        assert_eq!(unable.block_on(async { call(&transport).await }), Ok(ANSWER), "without I/O");
        let half = Builder::new_current_thread().enable_io().build().unwrap();
        assert_eq!(half.block_on(async { call(&transport).await }), Ok(ANSWER), "without time");
    }
}

#[test]
fn calls_end_with_their_runtime_and_leave_no_connection() {
    let (to, (transport, home)) = (node(false), transport());
    for _ in 0..3 {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = runtime.block_on(async {
            // Connects; nobody answers.
            let first = transport.call(to, get(), Duration::from_millis(300)).await;
            assert_eq!(first, Err(CallFailure::NoAnswer));
            [transport.call(to, get(), LONG), transport.call(to, message(Request::Ping), LONG)]
        });
        runtime.shutdown_timeout(LONG);
        for call in calls {
            assert!(matches!(block_on(call), Err(CallFailure::NotSent | CallFailure::NoAnswer)));
        }
    }
    assert_eq!(transport.entries(), 0, "connections of runtimes that have ended");
    drop(home);
}

#[test]
fn call_ends_by_its_deadline_without_a_running_runtime() {
    let (to, (transport, _home)) = (node(false), transport());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let call = || transport.call(to, get(), Duration::from_millis(300));
    // Connects; nobody answers.
    assert_eq!(runtime.block_on(async { call().await }), Err(CallFailure::NoAnswer));
    let call = {
        let _inside = runtime.enter();
        call()
    };
    let (ends, ended) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || ends.send(block_on(call)));
    assert_eq!(ended.recv_timeout(LONG), Ok(Err(CallFailure::NoAnswer)));
}

#[test]
fn stalled_runtime_is_not_used() {
    let (to, (transport, _home)) = (node(true), transport());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    for _ in 0..2 {
        assert_eq!(block_on(transport.call(to, get(), LONG)), Ok(ANSWER));
    }
    // Once it runs it is used again.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let opened = || runtime.block_on(async { transport.call(to, get(), LONG).await });
    assert_eq!(opened(), Ok(ANSWER));
}

#[test]
fn home_runtime_without_io_is_an_error() {
    let home = Builder::new_current_thread().enable_time().build().unwrap();
    let make_hello = Arc::new(|| message(Request::Hello(Box::new(said(None)))));
    let transport = FramedTransport::new(make_hello, LONG, home.handle().clone());
    for _ in 0..2 {
        let call = transport.call(node(true), get(), LONG);
        assert_eq!(home.block_on(call), Err(CallFailure::NotSent));
    }
}
