//! A node's side of framed connections on streams in memory, and a peer that speaks to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use zerocache_core::{
    call::CallFailure,
    cluster::Replicas,
    key::Key,
    limits::Limits,
    node::{Input, NodeConfig},
    store::Capacity,
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, VersionSource},
    wire::{
        Ack, Envelope, NodeInfo, NodeState, Request, RequestMessage, Response, Writer, cluster_id,
        features,
        frame::{Header, Opcode},
    },
};
use zerocache_net::transport::{
    Call, Transport,
    framed::{FrameReader, HANDSHAKE_ID, Incoming, UnlimitedMemory},
};
use zerocache_server::{
    access::{AccessControl, Caller, Connection},
    driver::{DriverParts, NodeDriver, SharedNode},
    framed::{FrameLimits, FramedConnections, FramedHandshake},
    hot_keys::HotKeyMode,
    storage::Storage,
    telemetry::ServerCounters,
};

/// The largest message that the node takes.
pub const MESSAGE_BYTES_MAX: usize = 200_000;

/// Far more than any of this takes.
pub const LONG: Duration = Duration::from_secs(30);

const CLUSTER: &str = "frames";

/// Reaches nobody.
struct Nowhere;

impl Transport for Nowhere {
    fn call(&self, _: SocketAddr, _: RequestMessage, _: Duration) -> Call {
        Call::ready(Err(CallFailure::NotSent))
    }
}

/// A node alone, and the connections to it.
pub fn node() -> Arc<FramedConnections> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let capacity = Capacity { entries_max: 10_000, bytes_max: 64 << 20 };
    let config = NodeConfig {
        cluster: CLUSTER.into(),
        info: NodeInfo {
            incarnation: Incarnation(1),
            region: "a".into(),
            zone: None,
            addresses: vec![address],
            state: NodeState::Warming,
            bytes_max: capacity.bytes_max,
            name: None,
            replicas: Replicas::All,
        },
        limits: Limits::default(),
        warm_max_ms: 0,
        outbox_bytes_max: 1 << 20,
        changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
        hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
        features: features::ALL,
        requires_tls: false,
        has_snapshot: false,
        secret: [7; 32],
    };
    let storage = Arc::new(Storage::new(capacity));
    let driver = NodeDriver::new(DriverParts {
        node: SharedNode::new(config, Arc::clone(&storage)),
        storage,
        transport: Arc::new(Nowhere),
        datagrams: None,
        discovery: None,
        hot_keys: HotKeyMode::default(),
        disk: None,
    });
    // There are no peers to find, so the node accepts writes.
    driver.input(Input::DiscoveryComplete);
    let limits = FrameLimits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        value_bytes_max: MESSAGE_BYTES_MAX as u64,
        pending_bytes_max: 8 << 20,
    };
    FramedConnections::new(
        driver,
        AccessControl::insecure(),
        Arc::new(ServerCounters::default()),
        Arc::new(UnlimitedMemory),
        limits,
    )
}

pub fn put(key: &str, bytes: usize, ttl_ms: u64) -> Request {
    let (value, ttl) = (Bytes::from(vec![1; bytes]), Ttl::from_millis(ttl_ms).unwrap());
    Request::Put {
        key: self::key(key),
        value,
        metadata: Bytes::new(),
        ttl,
        ack: Ack::Local,
        version: VersionSource::Accepted,
    }
}

pub fn get(key: &str) -> Request {
    Request::Get { key: self::key(key) }
}

fn key(key: &str) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes()), &Limits::default()).unwrap()
}

pub fn header(opcode: Opcode, id: u32, more: bool) -> Header {
    Header { opcode, more, id, sent_ms: 0, timeout_ms: 60_000 }
}

pub fn frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    header.write(&mut out, payload.len());
    out.extend_from_slice(payload);
    out.to_vec()
}

/// Encodes a request as the payload of its frames.
pub fn encoded(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    let message = RequestMessage { envelope: known(), request: request.clone() };
    message.encode_to(&mut Writer::new(&mut out), &known(), Instant::default());
    out.freeze()
}

fn known() -> Envelope {
    Envelope { cluster: cluster_id(CLUSTER), to: Some(Incarnation(1)), ..Envelope::default() }
}

/// A caller that may do everything.
fn caller() -> Arc<Caller> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Connection::plain(address, address);
    AccessControl::insecure().authenticate(&connection, None).expect("a caller")
}

/// The other end of a connection.
pub struct Peer {
    pub write: WriteHalf<DuplexStream>,
    pub responses: Responses,
}

/// The responses of the node.
pub struct Responses {
    read: ReadHalf<DuplexStream>,
    inbox: FrameReader,
}

impl Peer {
    /// Connects over a pipe that holds so many bytes.
    pub async fn connect(frames: &Arc<FramedConnections>, pipe_bytes: usize) -> Self {
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let begun = FramedHandshake {
            read: Bytes::new(),
            sent_ms: None,
            caller: caller(),
            known: known(),
            hello: Response::Done,
        };
        frames.serve(async move { Some((far, begun)) });
        let (read, write) = tokio::io::split(near);
        let mut responses =
            Responses { read, inbox: FrameReader::new(16 << 20, Arc::new(UnlimitedMemory)) };
        assert_eq!(responses.next().await, Some((HANDSHAKE_ID, Response::Done)));
        Self { write, responses }
    }

    /// Sends a request in one frame, and waits for what comes next.
    pub async fn ask(&mut self, header: Header, request: &Request) -> Response {
        self.write.write_all(&frame(header, &encoded(request))).await.unwrap();
        let (id, response) = self.responses.next().await.expect("a response");
        assert_eq!(id, header.id);
        response
    }
}

impl Responses {
    /// The next response; none at the end of the connection.
    pub async fn next(&mut self) -> Option<(u32, Response)> {
        loop {
            while let Some((header, _, incoming)) = self.inbox.next(Instant::default()).unwrap() {
                let message = match incoming {
                    Incoming::Small(_) => self.inbox.take(),
                    Incoming::Large(message) => message,
                    Incoming::Nothing => continue,
                    Incoming::Refused(code) => panic!("a response that is refused: {code:?}"),
                };
                assert_eq!(header.opcode, Opcode::Response);
                return Some((header.id, Response::decode(message).unwrap()));
            }
            if self.read.read_buf(self.inbox.buffer()).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}
