//! The engine over nodes that a test plays itself.

mod breaker;
mod denials;
mod hedge;
mod many;
mod overrun;
mod own_writes;
mod refusals;
mod starting;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use zerocache_core::{
    call::CallFailure,
    client::{OwnWrite, ReadOptions},
    key::Key,
    limits::KEY_BYTES_WIRE_MAX,
    version::{Incarnation, Version},
    wire::{NodeInfo, NodeState, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport},
};

use super::{background, config::Config, engine::Engine, entry::Entry, local_state::LocalState};
use crate::Error;

/// What a node does with reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plays {
    /// Has a value, and gives it after so many milliseconds.
    Has(u64),
    /// Has nothing, and is sure of it.
    Misses,
    /// Says nothing until the caller's time is up, which is at once.
    Silent,
    /// Takes no connection.
    Refuses,
    /// Says that it has too much to do.
    Overloaded,
    /// Does not permit reads.
    Denies,
}

/// Nodes that a test plays. They count what they were asked.
#[derive(Default)]
pub(super) struct Players(Mutex<BTreeMap<SocketAddr, (Plays, u64)>>);

impl Players {
    pub(super) fn play(&self, n: u64, plays: Plays) {
        self.0.lock().entry(address(n)).or_insert((plays, 0)).0 = plays;
    }

    /// How often the node was asked.
    pub(super) fn asked(&self, n: u64) -> u64 {
        self.0.lock().get(&address(n)).map_or(0, |(_, asked)| *asked)
    }
}

impl Transport for Players {
    fn call(&self, to: SocketAddr, message: RequestMessage, _: Duration) -> Call {
        assert!(matches!(message.request, Request::Get { .. }), "{:?}", message.request);
        let mut players = self.0.lock();
        let (plays, asked) = players.get_mut(&to).expect("the test plays this node");
        *asked += 1;
        match *plays {
            Plays::Has(0) => Call::ready(Ok(found(to))),
            Plays::Has(after_ms) => Call::boxed(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                Ok(found(to))
            }),
            Plays::Misses => Call::ready(Ok(Response::NotFound { warming: false, known: 0 })),
            Plays::Silent => Call::ready(Err(CallFailure::NoAnswer)),
            Plays::Refuses => Call::ready(Err(CallFailure::Refused)),
            Plays::Denies => {
                Call::ready(Ok(Response::refused(RefusalCode::Forbidden, "not yours")))
            }
            Plays::Overloaded => {
                Call::ready(Ok(Response::refused(RefusalCode::Overloaded, "too much to do")))
            }
        }
    }
}

fn found(by: SocketAddr) -> Response {
    Response::Found {
        value: Bytes::from(by.to_string()),
        metadata: Bytes::new(),
        version: Version::new(1 << 16, Incarnation(1)),
        remaining_ms: 60_000,
    }
}

pub(super) fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, u8::try_from(n).expect("a small number")], 6789))
}

/// The engine of a client in oslo that knows `local` nodes there and one in rome, and these nodes. All
/// of them have the value.
pub(super) fn engine(config: Config, local: u64) -> (Arc<Engine>, Arc<Players>) {
    let players = Arc::new(Players::default());
    let engine = engine_over(config, Arc::clone(&players) as Arc<dyn Transport>);
    for n in 1..=local + 1 {
        players.play(n, Plays::Has(0));
        let region = if n > local { "rome" } else { "oslo" };
        engine.directory().handshake_completed(info(n, region), address(n), clock::mono(), 100);
    }
    (engine, players)
}

/// An engine without discovery that has tried all nodes, and sends requests through `transport`.
pub(super) fn engine_over(config: Config, transport: Arc<dyn Transport>) -> Arc<Engine> {
    let engine = engine_at_start(config, transport);
    let mut state = engine.state.lock();
    state.discovery_completed();
    state.update_tried();
    drop(state);
    engine
}

/// An engine whose discovery has found nothing yet.
pub(super) fn engine_at_start(config: Config, transport: Arc<dyn Transport>) -> Arc<Engine> {
    let runtime = background::handle().expect("a runtime");
    let local = LocalState::of(&config, 0);
    Arc::new(Engine::new(config, local, transport, runtime))
}

/// What a node says of itself.
pub(super) fn info(n: u64, region: &str) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(n),
        region: region.to_owned(),
        zone: None,
        addresses: [address(n)].into(),
        state: NodeState::InSync,
        bytes_max: 1_000,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    }
}

/// A put that node `n` has taken.
pub(super) fn put_at(n: u64) -> OwnWrite {
    OwnWrite { node: Incarnation(n), version: None, is_delete: false }
}

/// Reads the key that all nodes have.
pub(super) async fn read(engine: &Engine) -> Result<Option<Entry>, Error> {
    let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
    Ok(engine.get(&key, ReadOptions::default(), 2_750).await?.entry)
}
