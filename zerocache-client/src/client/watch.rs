//! Learns of changes of the membership from one node, which answers when there are any.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use zerocache_core::{
    version::Incarnation,
    wire::{Request, Response},
};
use zerocache_net::clock;

use super::{attached::Attached, engine::Engine, finder::shake_hands};

/// How long an answer may take, in milliseconds: a node waits 10 s for a change.
const WATCH_TIMEOUT_MS: u64 = 11_000;

/// The pause between two answers of a node, in milliseconds: a view that changes all the time is learned
/// this often.
const PAUSE_MS: u64 = 250;

/// The watch over the membership at one node after the other.
#[derive(Default)]
pub(super) struct Watch {
    task: Attached,
    /// Whether the node has answered once.
    answers: Arc<AtomicBool>,
}

impl Watch {
    /// Whether changes are told, so that nobody else need be asked for them.
    pub(super) fn is_on(&self) -> bool {
        self.task.is_on() && self.answers.load(Ordering::Relaxed)
    }

    /// Sees to it that a node is asked, if one can tell; another one when that one fails.
    pub(super) fn keep(&mut self, engine: &Arc<Engine>) {
        let now = clock::mono();
        let mut directory = engine.directory();
        if !self.task.is_due(now, |node| directory.in_rotation(node, now)) {
            return;
        }
        if let Some((node, address, view)) = directory.next_watch_node(now) {
            self.answers = Arc::default();
            let answers = Arc::clone(&self.answers);
            self.task.begin(node, watch(Arc::downgrade(engine), node, address, view, answers));
        }
    }
}

/// Asks one node until it fails. Nothing of the engine is held while it waits, so that the client can
/// end.
async fn watch(
    engine: Weak<Engine>,
    node: Incarnation,
    address: SocketAddr,
    mut known: u64,
    answers: Arc<AtomicBool>,
) {
    loop {
        let Some((transport, message)) = engine.upgrade().map(|engine| {
            let request = Request::Watch { view: known };
            let message = engine.message(request, Some(node), WATCH_TIMEOUT_MS, engine.seen());
            (Arc::clone(&engine.transport), message)
        }) else {
            return;
        };
        let timeout = Duration::from_millis(WATCH_TIMEOUT_MS);
        let response = transport.call(address, message, timeout).await;
        drop(transport);
        let Some(engine) = engine.upgrade() else { return };
        let Ok(Response::Pong { incarnation, state, view, .. }) = response else { return };
        if incarnation != node {
            return;
        }
        let changed = engine.directory().watch_answered(node, state, view, clock::mono());
        engine.changed();
        if changed {
            if !shake_hands(&engine, address).await {
                return;
            }
            engine.directory().members_learned(node, view);
        }
        known = view;
        answers.store(true, Ordering::Relaxed);
        drop(engine);
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}
