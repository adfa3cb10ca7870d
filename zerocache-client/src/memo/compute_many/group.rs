//! The keys of one call, on their way together.

use std::collections::{HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use zerocache_net::clock;

use crate::ZerocacheClient;
use crate::memo::BoxFuture;
use crate::memo::call_target::CallTarget;
use crate::memo::completion::complete_unstored;
use crate::memo::flight::{self, Leader, Progress, Role};
use crate::memo::lookup::{Followed, Lookup, LookupOptions, answered, follow};
use crate::memo::near;
use crate::memo::options::Options;
use crate::memo::outage;
use crate::memo::recursion;
use crate::memo::rule::{Cacheable, Policy};
use crate::memo::run::{Run, Steps};
use crate::memo::stage::{Computation, FunctionRun, Stage, Step};
use crate::memo::stored::StoredEntry;
use crate::memo::ttl::TtlRule;
use crate::memo::writing_many::{ManyOptions, store_many};

/// What all keys of a call have in common.
pub(super) struct Shared<T> {
    pub(super) client: ZerocacheClient,
    pub(super) call: CallTarget,
    pub(super) ttl: TtlRule<T>,
    pub(super) policy: Policy<T>,
    pub(super) options: Options<T>,
}

impl<T> Shared<T> {
    fn run(&self, key: &Bytes) -> Run {
        Run { site: None, client: self.client.clone(), key: key.clone() }
    }

    /// The steps of one key.
    fn steps<'a>(&'a self, run: &'a Run) -> Steps<'a, T> {
        Steps {
            run: Some(run),
            call: &self.call,
            policy: &self.policy,
            ttl: &self.ttl,
            options: &self.options,
            is_background: false,
            report: None,
            decoded: None,
        }
    }

    fn lookup_options(&self) -> LookupOptions {
        let Options { near, deadline, .. } = &self.options;
        let outage_ms = self.outage_ms();
        LookupOptions { near: *near, outage_ms, deadline: *deadline, ..LookupOptions::default() }
    }

    fn outage_ms(&self) -> u64 {
        let own_ms = self.options.near_outage_ms;
        self.options.near.map_or(0, |_| outage::outage_ms(&self.client, own_ms))
    }
}

/// The keys that are completed together.
pub(super) struct Group<'a, K, V, E> {
    shared: &'a Shared<Result<V, E>>,
    /// The keys, each once, in the order in which they were given.
    order: Vec<Bytes>,
    /// The keys whose value is not known yet.
    keys: HashMap<Bytes, K>,
    pub(super) values: HashMap<K, V>,
    /// The keys to load.
    missing: Vec<(Bytes, Box<Computation>)>,
    /// Writes that have begun.
    pub(super) writes: Vec<BoxFuture<()>>,
}

/// What reading a key found.
type KeyLookup = (Bytes, Lookup);

/// A key that this call reads and loads, and an entry that may be served if that fails.
type LedKey = (Bytes, Option<Leader>, Option<StoredEntry>);

/// The keys that other calls compute.
type FollowedKeys = FuturesUnordered<BoxFuture<(Bytes, Followed)>>;

impl<'a, K, V, E> Group<'a, K, V, E>
where
    K: AsRef<[u8]> + Clone + Eq + Hash,
    V: Cacheable,
{
    pub(super) fn new(shared: &'a Shared<Result<V, E>>, given: impl Iterator<Item = K>) -> Self {
        let (mut order, mut keys) = (Vec::new(), HashMap::new());
        for key in given {
            let bytes = Bytes::copy_from_slice(key.as_ref());
            if keys.insert(bytes.clone(), key).is_none() {
                order.push(bytes);
            }
        }
        let values = HashMap::with_capacity(order.len());
        Group { shared, order, keys, values, missing: Vec::new(), writes: Vec::new() }
    }

    pub(super) async fn complete<C, F, M, Q>(&mut self, load: &mut C) -> Result<(), E>
    where
        C: FnMut(Vec<K>) -> F,
        F: Future<Output = Result<M, E>>,
        M: IntoIterator<Item = (Q, V)>,
        Q: AsRef<[u8]>,
    {
        let (leading, mut following) = self.join();
        let lookups = self.read(leading).await;
        self.take_lookups(lookups).await;
        self.load(load).await?;
        while let Some(first) = following.next().await {
            let (mut leading, mut lookups) = (Vec::new(), Vec::new());
            let mut take = |(key, followed)| match followed {
                Followed::Done(lookup) => lookups.push((key, lookup)),
                Followed::Read { leader, fallback } => leading.push((key, leader, fallback)),
            };
            take(first);
            // Keys that this call leads now are read and loaded together, before it waits for others again.
            while let Some(Some(next)) = following.next().now_or_never() {
                take(next);
            }
            if !leading.is_empty() {
                lookups.extend(self.read(leading).await);
            }
            self.take_lookups(lookups).await;
            self.load(load).await?;
        }
        Ok(())
    }

    /// Looks into the near cache, and joins the computations of the other keys: as a leader, or as a follower.
    fn join(&mut self) -> (Vec<LedKey>, FollowedKeys) {
        let Shared { client, policy, options, .. } = self.shared;
        let group = client.memo_counters().flight_group();
        let (mut leading, following) = (Vec::new(), FuturesUnordered::new());
        let outage_ms = self.shared.outage_ms();
        let is_outage = outage_ms > 0 && client.is_cut_off();
        for key in std::mem::take(&mut self.order) {
            let near = options.near.and_then(|age| near::find_key(client, &key, age, policy));
            let near = near.or_else(|| {
                let policy = is_outage.then_some(policy)?;
                outage::find_key(client, &key, outage_ms, policy)
            });
            if let Some(Ok(value)) = near {
                self.found(&key, value);
                continue;
            }
            if recursion::is_computing(group, &key) {
                // This call's own caller computes the key: waiting for it would be a deadlock.
                self.missing.push((key, Computation::new(None, None, 0)));
                continue;
            }
            match flight::join(group, &key, false) {
                Role::Leader(leader) => leading.push((key, Some(leader), None)),
                Role::Unshared => leading.push((key, None, None)),
                Role::Follower(follower) => {
                    let (client, options) = (client.clone(), self.shared.lookup_options());
                    following.push(Box::pin(async move {
                        let followed = follow(follower, &client, &key, options).await;
                        (key, followed)
                    }) as BoxFuture<(Bytes, Followed)>);
                }
            }
        }
        (leading, following)
    }

    /// Reads all keys in one round trip.
    async fn read(&mut self, leading: Vec<LedKey>) -> Vec<KeyLookup> {
        let Shared { client, options, .. } = self.shared;
        let keys = leading.iter().map(|(key, ..)| key.clone()).collect();
        let answers = client.read_many(keys, options.near, options.deadline).await;
        let outage_ms = self.shared.outage_ms();
        let lookup = |((key, leader, fallback), answer): (LedKey, _)| {
            let lookup = answered(client, (&key, answer), outage_ms, leader, fallback);
            (key, lookup)
        };
        leading.into_iter().zip(answers).map(lookup).collect()
    }

    /// Uses what was found for each key, as the call of one key does. Values of another shape take another read.
    async fn take_lookups(&mut self, mut lookups: Vec<KeyLookup>) {
        while !lookups.is_empty() {
            let mut again = Vec::new();
            for (key, lookup) in lookups {
                let run = self.shared.run(&key);
                match self.shared.steps(&run).after_lookup(lookup) {
                    Step::Value(Ok(value)) => self.found(&key, value),
                    Step::Next(Stage::Computing(computation)) => {
                        self.missing.push((key, computation));
                    }
                    Step::Next(Stage::LookingUp(lookup)) => {
                        again.push(async move { (key, lookup.await) });
                    }
                    // Errors are not read, and there are neither leases nor limits.
                    Step::Value(Err(_)) | Step::Next(_) => {}
                }
            }
            lookups = join_all(again).await;
        }
    }

    /// Loads the missing keys, and begins to store what the loader returns.
    async fn load<C, F, M, Q>(&mut self, load: &mut C) -> Result<(), E>
    where
        C: FnMut(Vec<K>) -> F,
        F: Future<Output = Result<M, E>>,
        M: IntoIterator<Item = (Q, V)>,
        Q: AsRef<[u8]>,
    {
        let mut missing = std::mem::take(&mut self.missing);
        if missing.is_empty() {
            return Ok(());
        }
        let asked: Vec<K> =
            missing.iter().filter_map(|(key, _)| self.keys.get(key).cloned()).collect();
        let keys: Arc<HashSet<Bytes>> =
            Arc::new(missing.iter().map(|(key, _)| key.clone()).collect());
        let group = self.shared.client.memo_counters().flight_group();
        let span = tracing::debug_span!(
            "zerocache_compute",
            function = "get_or_compute_many",
            keys = asked.len()
        );
        let outage_ms = self.shared.outage_ms();
        for (key, computation) in &mut missing {
            computation.unstored = outage::begin_unstored(&self.shared.client, key, outage_ms);
            let (span, started) = (tracing::Span::none(), clock::elapsed());
            computation.function_run = Some(FunctionRun { span, started });
        }
        let mut work = pin!(load(asked));
        let loaded = poll_fn(|context| {
            let _span = span.enter();
            let _entered = recursion::enter_all(group, &keys);
            work.as_mut().poll(context)
        });
        match loaded.await {
            Ok(loaded) => {
                self.store(missing, loaded);
                Ok(())
            }
            Err(error) => self.serve_previous(missing).ok_or(error),
        }
    }

    fn store<M, Q>(&mut self, missing: Vec<(Bytes, Box<Computation>)>, loaded: M)
    where
        M: IntoIterator<Item = (Q, V)>,
        Q: AsRef<[u8]>,
    {
        let mut missing: HashMap<_, _> = missing.into_iter().collect();
        let mut writes = Vec::new();
        for (key, value) in loaded {
            let Some((key, computation)) = missing.remove_entry(key.as_ref()) else { continue };
            let (run, value) = (self.shared.run(&key), Ok(value));
            let write = self.shared.steps(&run).prepare_write(&value, *computation);
            writes.extend(write.map(|write| (key.clone(), write)));
            if let Ok(value) = value {
                self.found(&key, value);
            }
        }
        // Whoever waits for a key that the loader left out computes it.
        missing
            .into_values()
            .for_each(|computation| complete_unstored(*computation, Progress::Nothing));
        if !writes.is_empty() {
            let Options { ack, deadline, near, .. } = &self.shared.options;
            let ack = ack.unwrap_or_default();
            let options = ManyOptions { ack, deadline: *deadline, is_near: near.is_some() };
            self.writes.push(store_many(&self.shared.client, writes, options));
        }
    }

    /// Serves the previous values of keys whose load failed. Returns `None` if a key has none.
    fn serve_previous(&mut self, missing: Vec<(Bytes, Box<Computation>)>) -> Option<()> {
        let mut all = Some(());
        for (key, computation) in missing {
            let run = self.shared.run(&key);
            match self.shared.steps(&run).serve_on_error(&run, *computation) {
                Ok(Ok(value)) => self.found(&key, value),
                Ok(Err(_)) => all = None,
                Err(computation) => {
                    complete_unstored(*computation, Progress::Nothing);
                    all = None;
                }
            }
        }
        all
    }

    fn found(&mut self, key: &Bytes, value: V) {
        if let Some(key) = self.keys.remove(key) {
            self.values.insert(key, value);
        }
    }
}
