//! Keeps a client's directory: finds nodes, probes them, learns of others from them.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use zerocache_core::{
    call::CallResult,
    client::{HandshakeOutcome, ProbeOutcome},
    cluster::AddressSource,
    route::NodeEntry,
    time::Instant,
    version::Incarnation,
    wire::Request,
};
use zerocache_net::{
    clock,
    discovery::{Discovery, Event},
};

use super::{
    engine::{Engine, hello, micros_since},
    feed::Feed,
    telemetry::PUBLISH_MS,
    watch::Watch,
};

/// The interval between two checks for due handshakes and probes: the granularity of probes.
const TICK: Duration = Duration::from_millis(50);

/// The longest time for a handshake or probe, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// The most handshakes and probes in progress beyond which no probe is started.
const TASKS_MAX: usize = 1_024;

/// The interval between two warnings that no node can be reached, or none stands in the client's region, in
/// milliseconds.
const REPEAT_MS: u64 = 300_000;

/// Most regions that are named in the log.
const REGIONS_LOGGED_MAX: usize = 16;

/// Runs until the engine is gone. `discovery` lives as long as this does.
pub(super) async fn run(
    engine: Weak<Engine>,
    discovery: Discovery,
    mut events: mpsc::Receiver<Event>,
) {
    let discovery = Arc::new(discovery);
    let mut tasks = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discovering = true;
    let mut reach = None;
    let mut published = clock::mono();
    let (mut watch, mut feed) = (Watch::default(), Feed::default());
    loop {
        tokio::select! {
            event = events.recv(), if discovering => match event {
                Some(event) => {
                    let Some(engine) = engine.upgrade() else { return };
                    discovered(&engine, event);
                }
                None => discovering = false,
            },
            _ = ticks.tick() => {}
            Some(_) = tasks.join_next() => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        watch.keep(&engine);
        feed.keep(&engine);
        start_due(&engine, &discovery, &mut tasks, watch.is_on());
        note_reach(&engine, &mut reach);
        let now = clock::mono();
        if now.since_ms(published) >= PUBLISH_MS {
            published = now;
            engine.publish();
        }
    }
}

/// Where the cache can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// No node answers.
    Nowhere,
    /// Nodes answer, and none is known in the client's own region.
    Elsewhere,
    /// Nodes answer, and some are known in the client's own region.
    Here,
}

impl Reach {
    fn of(engine: &Engine, now: Instant) -> Self {
        let directory = engine.directory();
        if !directory.nodes().any(|node| node.is_reachable(now)) {
            Self::Nowhere
        } else if directory.nodes().any(NodeEntry::is_local) {
            Self::Here
        } else {
            Self::Elsewhere
        }
    }
}

/// Logs when no node can be reached, when none stands in the client's region, and when all is well.
fn note_reach(engine: &Engine, logged: &mut Option<(Reach, Instant)>) {
    let now = clock::mono();
    let reach = Reach::of(engine, now);
    // At the start nothing is missing before everything has been tried.
    let is_known = reach == Reach::Here || engine.state.lock().is_tried();
    if reach == Reach::Nowhere && engine.obstacle().is_some() {
        // The reason was logged.
        return;
    }
    let is_logged = logged.is_some_and(|(before, at)| {
        before == reach && (reach == Reach::Here || now.since_ms(at) < REPEAT_MS)
    });
    if is_logged || !is_known {
        return;
    }
    *logged = Some((reach, now));
    let (region, cluster) = (&engine.config.region, &engine.config.cluster);
    match reach {
        Reach::Here => tracing::info!(region, cluster, "the cache can be reached"),
        Reach::Elsewhere => {
            let regions = regions(engine);
            tracing::warn!(
                region,
                cluster,
                ?regions,
                "no node stands in the region of this client: every operation goes to another region"
            );
        }
        Reach::Nowhere => {
            let ways = &engine.config.discovery_methods;
            let seeds: Vec<_> = engine.config.seeds.iter().map(ToString::to_string).collect();
            let dns: Vec<_> = engine.config.dns.iter().map(ToString::to_string).collect();
            tracing::warn!(
                region,
                cluster,
                mdns = ways.mdns,
                ?seeds,
                ?dns,
                "no node of the cache can be reached: memoized functions compute, unless they allow an outage"
            );
        }
    }
}

/// The regions in which nodes are known.
fn regions(engine: &Engine) -> Vec<String> {
    let directory = engine.directory();
    let regions: BTreeSet<_> = directory.nodes().map(|node| node.info.region.clone()).collect();
    regions.into_iter().take(REGIONS_LOGGED_MAX).collect()
}

fn discovered(engine: &Engine, event: Event) {
    let now = clock::mono();
    match event {
        Event::Proposed(proposal) => {
            let mut directory = engine.directory();
            for address in proposal.addresses {
                directory.propose(address, AddressSource::Discovery, now);
            }
        }
        // Its probe says soon whether it is true.
        Event::Withdrawn(_) => {}
        Event::Complete => engine.state.lock().discovery_completed(),
    }
}

/// Starts the handshakes and probes that are due, and notes when all addresses found at the start have been
/// tried.
fn start_due(
    engine: &Arc<Engine>,
    discovery: &Arc<Discovery>,
    tasks: &mut JoinSet<()>,
    watches: bool,
) {
    let now = clock::mono();
    let (dials, probes, is_tried_now) = {
        let mut state = engine.state.lock();
        let directory = state.directory_mut();
        let dials = directory.candidates_mut().take_due(now);
        let probes =
            if tasks.len() < TASKS_MAX { directory.take_due_probes(now) } else { Vec::new() };
        (dials, probes, state.update_tried())
    };
    if is_tried_now {
        engine.changed();
    }
    for address in dials {
        let (engine, discovery) = (Arc::clone(engine), Arc::clone(discovery));
        tasks.spawn(async move {
            let introduced = shake_hands(&engine, address).await;
            discovery.record_answer(address, introduced);
        });
    }
    for (node, address) in probes {
        let (engine, discovery) = (Arc::clone(engine), Arc::clone(discovery));
        tasks.spawn(async move {
            let lives = probe(&engine, node, address, watches).await;
            discovery.record_answer(address, lives);
        });
    }
}

/// Introduces the client at an address, and learns which node stands there and which others that one knows.
/// Returns whether a node introduced itself.
pub(super) async fn shake_hands(engine: &Engine, address: SocketAddr) -> bool {
    let cluster = &engine.config.cluster;
    let hello = hello(cluster, &engine.config.region);
    let started = clock::elapsed();
    let result = call(engine, address, None, Request::Hello(Box::new(hello))).await;
    let (now, elapsed_us) = (clock::mono(), micros_since(started));
    let outcome = engine.state.lock().handshake_answered(cluster, address, result, now, elapsed_us);
    match &outcome {
        HandshakeOutcome::OtherCluster(reason) => {
            tracing::warn!(%address, reason, "node belongs to another cluster");
        }
        HandshakeOutcome::Denied(denial, text) => engine.warn_of_denial(*denial, text),
        HandshakeOutcome::Unverified => engine.warn_of_unverified(address),
        HandshakeOutcome::Introduced | HandshakeOutcome::Failed => {}
    }
    engine.changed();
    outcome == HandshakeOutcome::Introduced
}

/// Probes a known node; learns its members again when they have changed, unless the client `watches` them.
/// Returns whether the node answered.
async fn probe(engine: &Engine, node: Incarnation, address: SocketAddr, watches: bool) -> bool {
    let started = clock::elapsed();
    let result = call(engine, address, Some(node), Request::Ping).await;
    let (now, elapsed_us) = (clock::mono(), micros_since(started));
    let ProbeOutcome { is_local, new_view } =
        engine.state.lock().probe_answered(node, result, now, elapsed_us);
    engine.changed();
    if let Some(is_local) = is_local {
        engine.probe_took(is_local, Duration::from_micros(elapsed_us));
    }
    if let Some(view) = new_view.filter(|_| !watches)
        && shake_hands(engine, address).await
    {
        engine.directory().members_learned(node, view);
    }
    is_local.is_some()
}

async fn call(
    engine: &Engine,
    address: SocketAddr,
    node: Option<Incarnation>,
    request: Request,
) -> CallResult {
    let message = engine.message(request, node, PROBE_TIMEOUT_MS, engine.seen());
    let timeout = Duration::from_millis(PROBE_TIMEOUT_MS);
    engine.transport.call(address, message, timeout).await
}
