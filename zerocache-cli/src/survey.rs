//! Asks every node of the cluster for its view: those that discovery finds, and those that they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::HeaderMap;
use serde_json::Value as Json;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use zerocache_net::{
    clock,
    discovery::{Discovery, DiscoveryConfig, Event, HostPort},
    security::Security,
    transport::http_request,
};

use crate::{
    context::{Context, lookup, no_answer, parse_json},
    exit::Exit,
    failure::Failure,
    histogram::Growth,
};

/// The most addresses that are asked: the thousand nodes of the largest membership that is tested, and
/// those of each that a name has twice.
const ADDRESSES_MAX: usize = 2_048;

/// The most nodes that are asked at a time.
const AT_A_TIME_MAX: usize = 64;

/// A way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// It was named on the command line.
    Named,
    Seed,
    Dns,
    Mdns,
    /// A node has it in its view.
    View,
}

/// A name in the settings, and its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) way: Way,
    pub(crate) name: String,
    pub(crate) addresses: Result<Vec<SocketAddr>, String>,
}

/// A node that answered.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    /// Where it was asked.
    pub(crate) address: SocketAddr,
    /// The round trip of the request, with its connection.
    pub(crate) took: Duration,
    /// How far the wall clock of the node is ahead of this process's, and how uncertain that is, in milliseconds;
    /// none if the node does not tell.
    pub(crate) clock_ms: Option<(f64, f64)>,
    /// `/v1/cluster`.
    pub(crate) cluster: Json,
    /// `/v1/stats`, or why there is none.
    pub(crate) stats: Result<Json, String>,
    /// When the certificate of the node ceases to be valid, in seconds of the Unix epoch.
    pub(crate) certificate_end_s: Option<u64>,
}

impl NodeView {
    /// What the node says about itself.
    pub(crate) fn own(&self) -> &Json {
        &self.cluster["nodes"][0]
    }

    pub(crate) fn id(&self) -> &str {
        self.own()["id"].as_str().unwrap_or_default()
    }

    pub(crate) fn region(&self) -> &str {
        self.own()["region"].as_str().unwrap_or_default()
    }

    /// The members that the node knows, itself first.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Json> {
        self.cluster["nodes"].as_array().into_iter().flatten()
    }

    /// What the node says about another one.
    pub(crate) fn row(&self, id: &str) -> Option<&Json> {
        self.members().find(|row| row["id"] == id)
    }

    /// A number of the node's statistics.
    pub(crate) fn stat(&self, name: &str) -> Option<f64> {
        self.stats.as_ref().ok()?[name].as_f64()
    }

    /// How much a counter grew since an earlier survey; none if the node was not in it.
    pub(crate) fn growth(&self, before: &Survey, counter: &str) -> Option<f64> {
        let before = before.node(self.id())?;
        Some(self.stat(counter)? - before.stat(counter)?)
    }

    /// How much a histogram grew since an earlier survey, by its name and the value of its label.
    pub(crate) fn histogram_growth(
        &self,
        before: &Survey,
        (name, label): (&str, &str),
    ) -> Option<Growth> {
        let before = before.node(self.id())?;
        let histogram =
            |node: &Self| node.stats.as_ref().ok().map(|stats| stats[name][label].clone());
        Growth::between(&histogram(before)?, &histogram(self)?)
    }

    /// How long the certificate of the node is valid, in days.
    pub(crate) fn certificate_days(&self) -> Option<f64> {
        let now_s = clock::now().wall_ms as f64 / 1_000.0;
        Some((self.certificate_end_s? as f64 - now_s) / 86_400.0)
    }

    /// The node in text: its region and address.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.region(), member_address(self.own()).unwrap_or(self.address))
    }
}

/// Why no node of the cluster answers at an address; what says most comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Silence {
    NoAnswer,
    /// A node of another cluster answers.
    OtherCluster,
    /// A node denies the credentials.
    Denied,
}

/// An address at which no node of the cluster answers.
#[derive(Clone, Debug)]
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    pub(crate) silence: Silence,
    pub(crate) why: String,
}

/// What all nodes say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) names: Vec<Name>,
    /// One for each node that answered, by region and address.
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) silent: Vec<Silent>,
    /// The ways to the addresses.
    pub(crate) ways: BTreeMap<SocketAddr, BTreeSet<Way>>,
    /// The nodes of the cluster that answered, by the addresses that were asked.
    pub(crate) ids: BTreeMap<SocketAddr, String>,
}

impl Survey {
    /// Returns what a node answered.
    pub(crate) fn node(&self, id: &str) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id() == id)
    }
}

/// The part of the reads that found something, in percent; none without reads. `counter` returns a counter
/// of reads.
pub(crate) fn hit_percent(counter: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let hits = counter("hits")? + counter("stale_hits")?;
    let reads = hits + counter("misses")?;
    (reads > 0.0).then(|| 100.0 * hits / reads)
}

/// Returns the address of a member in a view.
pub(crate) fn member_address(member: &Json) -> Option<SocketAddr> {
    let ip: IpAddr = member["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(member["port"].as_u64()?).ok()?))
}

/// Asks one node.
async fn ask(
    to: SocketAddr,
    (timeout, security): (Duration, Security),
) -> (SocketAddr, Result<NodeView, Failure>) {
    let get = async |target: &str| {
        let request = (hyper::Method::GET, target, bytes::Bytes::new());
        let response = http_request(to, request, HeaderMap::new(), timeout, &security).await;
        response.map_err(|failure| no_answer(to, failure))
    };
    let (started, asked_ms) = (clock::elapsed(), clock::now().wall_ms);
    let view = async {
        let response = get("/v1/cluster").await?;
        let answered_ms = clock::now().wall_ms;
        let cluster = parse_json(to, &response)?;
        if !cluster["nodes"][0]["id"].is_string() {
            return Err(Failure::new(format!("{to}: the answer is not that of a node")));
        }
        let took = clock::elapsed().saturating_sub(started);
        // The node read its clock at some moment in between.
        let (middle_ms, half_ms) = (asked_ms.midpoint(answered_ms), (answered_ms - asked_ms) / 2);
        let ahead_ms = cluster["wall_ms"].as_f64().map(|wall_ms| wall_ms - middle_ms as f64);
        let clock_ms = ahead_ms.map(|ahead_ms| (ahead_ms, half_ms as f64));
        let stats = get("/v1/stats").await.and_then(|stats| parse_json(to, &stats));
        let stats = stats.map_err(|failure| failure.line().to_owned());
        let end = response.certificate_end;
        let end = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        let certificate_end_s = end.map(|end| end.as_secs());
        Ok(NodeView { address: to, took, clock_ms, cluster, stats, certificate_end_s })
    };
    (to, view.await)
}

/// Questions to nodes, of which a bounded number is asked at a time.
pub(crate) struct Questions<T> {
    tasks: JoinSet<T>,
    permits: Arc<Semaphore>,
}

impl<T: Send + 'static> Questions<T> {
    pub(crate) fn new() -> Self {
        Self { tasks: JoinSet::new(), permits: Arc::new(Semaphore::new(AT_A_TIME_MAX)) }
    }

    /// Asks one more.
    pub(crate) fn ask(&mut self, question: impl Future<Output = T> + Send + 'static) {
        let permits = Arc::clone(&self.permits);
        self.tasks.spawn(async move {
            // It is never closed.
            let _permit = permits.acquire().await;
            question.await
        });
    }

    /// Returns the next answer; none when all are answered.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.tasks.join_next().await?.ok()
    }
}

/// Asks nodes, each once.
struct Asker<'a> {
    context: &'a Context,
    questions: Questions<(SocketAddr, Result<NodeView, Failure>)>,
    survey: Survey,
}

impl<'a> Asker<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, questions: Questions::new(), survey: Survey::default() }
    }

    fn propose(&mut self, address: SocketAddr, way: Way) {
        let ways = &mut self.survey.ways;
        if ways.len() >= ADDRESSES_MAX && !ways.contains_key(&address) {
            return;
        }
        let ways = ways.entry(address).or_default();
        let is_new = ways.is_empty();
        ways.insert(way);
        if is_new {
            let (timeout, security) = (self.context.global.timeout, self.context.security.clone());
            self.questions.ask(ask(address, (timeout, security)));
        }
    }

    fn answered(&mut self, (address, answer): (SocketAddr, Result<NodeView, Failure>)) {
        let silent = |silence, why| Silent { address, silence, why };
        let view = match answer {
            Ok(view) => view,
            Err(failure) => {
                let is_denied = failure.exit() == Exit::DENIED;
                let silence = if is_denied { Silence::Denied } else { Silence::NoAnswer };
                self.survey.silent.push(silent(silence, failure.line().to_owned()));
                return;
            }
        };
        let cluster = view.cluster["cluster"].as_str().unwrap_or_default();
        if cluster != self.context.cluster() {
            let why = format!("{address}: a node of the cluster {cluster:?}");
            self.survey.silent.push(silent(Silence::OtherCluster, why));
            return;
        }
        if self.context.global.node.is_none() {
            let known: Vec<_> = view.members().skip(1).filter_map(member_address).collect();
            known.into_iter().for_each(|address| self.propose(address, Way::View));
        }
        self.survey.ids.insert(address, view.id().to_owned());
        if self.survey.node(view.id()).is_none() {
            self.survey.nodes.push(view);
        }
    }

    fn finish(mut self) -> Survey {
        let survey = &mut self.survey;
        survey.silent.sort_by_key(|silent| silent.address);
        survey.nodes.sort_by(|one, other| {
            let of = |node: &NodeView| (node.region().to_owned(), member_address(node.own()));
            of(one).cmp(&of(other))
        });
        self.survey
    }
}

/// The names in the settings: each, and the way that it is.
fn names(context: &Context) -> Vec<(Way, HostPort)> {
    if let Some(node) = &context.global.node {
        return vec![(Way::Named, node.clone())];
    }
    let DiscoveryConfig { dns, seeds, .. } = &context.discovery;
    let dns = dns.iter().map(|name| (Way::Dns, name.clone()));
    let seeds = seeds.iter().map(|name| (Way::Seed, name.clone()));
    dns.chain(seeds).collect()
}

/// Asks all nodes, or until one has answered that is `enough`.
async fn run(context: &Context, enough: impl Fn(&NodeView) -> bool) -> Survey {
    let mut asker = Asker::new(context);
    let mut lookups = JoinSet::new();
    for (way, name) in names(context) {
        let timeout = context.global.timeout;
        lookups.spawn(async move {
            let addresses = lookup(&name, timeout).await;
            Name { way, name: name.to_string(), addresses }
        });
    }
    let (events, mut found) = mpsc::channel(256);
    let mdns = DiscoveryConfig { dns: Vec::new(), seeds: Vec::new(), ..context.discovery.clone() };
    let wants_mdns = mdns.mdns.is_some() && context.global.node.is_none();
    let discovery = wants_mdns.then(|| Discovery::start(mdns, events)).and_then(Result::ok);
    let mut is_browsing = discovery.is_some();
    while is_browsing || !lookups.is_empty() || !asker.questions.tasks.is_empty() {
        tokio::select! {
            event = found.recv(), if is_browsing => match event {
                Some(Event::Proposed(proposal)) => {
                    for address in proposal.addresses {
                        asker.propose(address, Way::Mdns);
                    }
                }
                Some(Event::Withdrawn(_)) => {}
                Some(Event::Complete) | None => is_browsing = false,
            },
            Some(Ok(name)) = lookups.join_next() => {
                for address in name.addresses.iter().flatten() {
                    asker.propose(*address, name.way);
                }
                asker.survey.names.push(name);
            }
            Some(answer) = asker.questions.next() => {
                asker.answered(answer);
                if asker.survey.nodes.last().is_some_and(&enough) {
                    break;
                }
            }
            else => break,
        }
    }
    if let Some(discovery) = discovery {
        discovery.shutdown().await;
    }
    asker.finish()
}

/// Asks every node. There may be none.
pub(crate) async fn all(context: &Context) -> Survey {
    run(context, |_| false).await
}

/// Asks every node, of which one must answer.
pub(crate) async fn needed(context: &Context) -> Result<Survey, Failure> {
    let survey = all(context).await;
    check_answered(&survey)?;
    Ok(survey)
}

/// Asks every node twice, `watch` apart: what counters grew by between the two is happening now. One node must
/// answer each time.
pub(crate) async fn twice(context: &Context, watch: Duration) -> Result<(Survey, Survey), Failure> {
    let before = needed(context).await?;
    tokio::time::sleep(watch).await;
    Ok((before, needed(context).await?))
}

/// Returns the first node that answers and is `wanted`; without one, any that answers.
pub(crate) async fn first(
    context: &Context,
    wanted: impl Fn(&NodeView) -> bool,
) -> Result<NodeView, Failure> {
    let mut survey = run(context, &wanted).await;
    check_answered(&survey)?;
    let place = survey.nodes.iter().position(wanted);
    Ok(survey.nodes.swap_remove(place.unwrap_or_default()))
}

fn check_answered(survey: &Survey) -> Result<(), Failure> {
    if !survey.nodes.is_empty() {
        return Ok(());
    }
    if let Some(silent) = survey.silent.iter().max_by_key(|silent| silent.silence) {
        let is_denied = silent.silence == Silence::Denied;
        let exit = if is_denied { Exit::DENIED } else { Exit::UNREACHABLE };
        return Err(Failure::with(exit, format!("no node answers: {}", silent.why)));
    }
    let unresolved = survey.names.iter().find_map(|name| {
        let why = name.addresses.as_ref().err()?;
        Some(format!("no node answers: {}: {why}", name.name))
    });
    Err(Failure::unreachable(unresolved.unwrap_or_else(|| {
        "no node was found; name one with --seed HOST:PORT, or set ZEROCACHE_SEED".to_owned()
    })))
}
