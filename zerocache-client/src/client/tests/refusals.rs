//! Nodes that refuse: what is too large for them, and when they have too much to do.

use zerocache_core::{
    ttl::Ttl,
    version::Version,
    wire::{Ack, RefusalCode, Status, Written},
};

use super::{
    Arc, BTreeMap, Bytes, Call, Config, Duration, Engine, Error, Incarnation, KEY_BYTES_WIRE_MAX,
    Key, Mutex, Plays, Request, RequestMessage, Response, SocketAddr, Transport, address, clock,
    engine, engine_over, info, read,
};
use crate::client::{
    prepared::WriteVersion,
    writes::{StoredValue, WriteRequest},
};

/// How large a value the nodes of a test take, whether they say so, and the values that they were sent.
#[derive(Default)]
struct Takers(Mutex<BTreeMap<SocketAddr, Taker>>);

struct Taker {
    bytes_max: usize,
    tells: bool,
    sent: Vec<usize>,
}

impl Takers {
    fn take(&self, n: u64, bytes_max: usize, tells: bool) {
        self.0.lock().insert(address(n), Taker { bytes_max, tells, sent: Vec::new() });
    }

    fn sent(&self, n: u64) -> Vec<usize> {
        self.0.lock()[&address(n)].sent.clone()
    }
}

impl Transport for Takers {
    fn call(&self, to: SocketAddr, message: RequestMessage, _: Duration) -> Call {
        let Request::Put { value, .. } = message.request else {
            panic!("{:?}", message.request);
        };
        let mut takers = self.0.lock();
        let taker = takers.get_mut(&to).expect("the test plays this node");
        taker.sent.push(value.len());
        Call::ready(Ok(match (value.len() > taker.bytes_max, taker.tells) {
            (true, true) => Response::value_too_large(value.len() as u64, taker.bytes_max as u64),
            (true, false) => Response::refused(RefusalCode::TooLarge, "too large"),
            (false, _) => Response::Written(Written {
                status: Status::Stored,
                replicas: 1,
                replicas_wanted: 1,
                version: Some(Version::new(1, Incarnation(1))),
            }),
        }))
    }
}

fn takers(local: u64) -> (Arc<Engine>, Arc<Takers>) {
    let takers = Arc::new(Takers::default());
    let engine = engine_over(Config::new("oslo"), Arc::clone(&takers) as Arc<dyn Transport>);
    for n in 1..=local {
        engine.directory().handshake_completed(info(n, "oslo"), address(n), clock::mono(), 100);
    }
    (engine, takers)
}

fn put(key: &'static str, bytes: usize) -> WriteRequest {
    let key = Key::within(Bytes::from_static(key.as_bytes()), KEY_BYTES_WIRE_MAX).expect("a key");
    let value = Bytes::from(vec![b'x'; bytes]);
    let (metadata, life) = (Bytes::new(), Ttl::from_secs(60).expect("a lifetime"));
    let value = Some(StoredValue { value, metadata, life, version: WriteVersion::Accepted });
    WriteRequest { key, value, ack: Ack::Local }
}

async fn refused(engine: &Engine, bytes: usize) -> String {
    match engine.write(put("key", bytes), 2_750).await {
        Err(Error::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn too_large_value_is_sent_once_to_each_node() {
    let (engine, takers) = takers(2);
    takers.take(1, 1_000, true);
    takers.take(2, 1_000, true);
    for _ in 0..10 {
        let text = refused(&engine, 2_000).await;
        assert_eq!(text, "the value has 2000 bytes; at most 1000 are allowed");
        assert_eq!(refused(&engine, 1_001).await, text.replace("2000", "1001"));
    }
    let sent = [takers.sent(1), takers.sent(2)];
    assert!(sent.iter().all(|sent| sent.len() == 1), "{sent:?}");
    let stats = engine.counters.snapshot();
    assert_eq!((stats.too_large, stats.too_large_unsent), (20, 18));
    // What they take they get.
    assert_eq!(engine.write(put("key", 1_000), 2_750).await.expect("taken").status, Status::Stored);
    assert_eq!(engine.counters.snapshot().too_large, 20);
}

#[tokio::test]
async fn each_node_has_a_limit_of_its_own() {
    let (engine, takers) = takers(2);
    takers.take(1, 1_000, true);
    takers.take(2, 4_000, true);
    let mut stored = 0;
    for _ in 0..10 {
        stored += u64::from(engine.write(put("key", 2_000), 2_750).await.is_ok());
    }
    assert_eq!((stored, takers.sent(1).len(), takers.sent(2).len()), (5, 1, 5));
}

#[tokio::test]
async fn of_a_node_that_does_not_tell_its_limit_what_it_refused_is_known() {
    let (engine, takers) = takers(1);
    takers.take(1, 1_000, false);
    for bytes in [3_000, 3_000, 2_000, 2_500, 2_000, 1_500, 3_000] {
        refused(&engine, bytes).await;
    }
    assert_eq!(takers.sent(1), [3_000, 2_000, 1_500]);
}

#[tokio::test]
async fn too_large_values_of_a_batch_are_not_sent_again() {
    let (engine, takers) = takers(1);
    takers.take(1, 1_000, true);
    for _ in 0..3 {
        let requests = vec![put("a", 10), put("b", 2_000), put("c", 20)];
        let outcomes = engine.write_many(requests, 2_750).await;
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
        assert!(matches!(&outcomes[1], Err(Error::Refused(_))), "{:?}", outcomes[1]);
    }
    assert_eq!(takers.sent(1), [10, 2_000, 20, 10, 20, 10, 20]);
}

#[tokio::test]
async fn a_node_that_has_too_much_to_do_is_passed_over() {
    let (engine, players) = engine(Config::new("oslo"), 3);
    players.play(1, Plays::Overloaded);
    for _ in 0..30 {
        assert!(read(&engine).await.expect("another one has it").is_some());
    }
    // Ten times, if nothing were made of what it says. It may be asked again after a while.
    let asked = players.asked(1);
    assert!((1..5).contains(&asked), "{asked}");
    let directory = engine.directory();
    assert!(!directory.node(Incarnation(1)).expect("known").out, "it lives");
}
