//! Memoization of many keys by one loader: one read, one load of what is missing, one write.
//!
//! Each key goes through the steps of a single call, with the same table of computations. Only the read, the load
//! and the write are shared by the keys of a call.
//!
//! A call first completes all keys that it leads, and then waits for those that others lead: two calls with
//! overlapping keys never wait for each other.

mod group;

use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use self::group::{Group, Shared};
use super::call_target::{CallTarget, ExplicitKey};
use super::compute::SITE;
use super::equality::WithoutEquality;
use super::options::Options;
use super::rule::{Cacheable, Errors, OkRule, Policy, Sharing};
use super::target::Target;
use super::ttl::TtlRule;
use crate::codec::Codec;
use crate::lifetime::Lifetime;
use crate::{Ack, ZerocacheClient};

/// The most keys that are completed together: a call with more does so for each group of this many, one after the
/// other. It bounds what one call adds to the table of computations.
const KEYS_MAX: usize = 4_096;

/// The values of many keys; from [`ZerocacheClient::get_or_compute_many`].
///
/// Nothing happens before it is awaited.
///
/// # Cancellation
///
/// Dropping it ends its load; calls that wait for its keys load them themselves.
#[must_use = "a call does nothing unless it is awaited"]
pub struct ComputeMany<'a, K, V, E, C> {
    client: ZerocacheClient,
    keys: Vec<K>,
    ttl: TtlRule<Result<V, E>>,
    policy: Policy<Result<V, E>>,
    options: Options<Result<V, E>>,
    load: C,
    /// The time for which the loader lives.
    lifetime: PhantomData<&'a ()>,
}

impl ZerocacheClient {
    /// Returns the values of many keys from the cache, and loads all that are missing together, each key once per
    /// process at a time.
    ///
    /// It is [`get_or_compute`](Self::get_or_compute) for many keys: one round trip reads them, one call of `load`
    /// gets all keys that are missing, and one round trip stores what it returns, each value as
    /// [`Value`](crate::Value) for `ttl`. (Round trips carry 512 keys each.) Keys that other calls of this process
    /// load already, of this kind or `get_or_compute`, are not loaded: the call waits for their values.
    ///
    /// The result has the keys with a value. A key that `load` does not return has none, and nothing is stored for
    /// it; a `V` that is an `Option` stores absence. A key that was not asked for is ignored. `load` is called
    /// again only for keys whose value another call was to load, and did not.
    ///
    /// More than 4,096 keys are loaded in groups of that many, one after the other.
    ///
    /// # Errors
    ///
    /// The error of `load`, unless all keys that it was to load have a previous value that may be served on errors.
    /// An unreachable cache never fails the call.
    ///
    /// ```no_run
    /// # async fn rows(_: &[String]) -> Result<Vec<(String, u64)>, std::io::Error> { Ok(Vec::new()) }
    /// # async fn example() -> Result<(), std::io::Error> {
    /// use zerocache_client::ZerocacheClient;
    ///
    /// let cache = ZerocacheClient::get_instance("london");
    /// let keys = (1..=100).map(|id| format!("price:{id}"));
    /// let prices = cache.get_or_compute_many(keys, 60, async |missing| rows(&missing).await).await?;
    /// let price = prices.get("price:7");
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_compute_many<'a, K, V, E, C, F, M, Q>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl Lifetime,
        load: C,
    ) -> ComputeMany<'a, K, V, E, C>
    where
        K: AsRef<[u8]> + Clone + Eq + Hash,
        V: Cacheable,
        C: FnMut(Vec<K>) -> F + 'a,
        F: Future<Output = Result<M, E>> + 'a,
        M: IntoIterator<Item = (Q, V)>,
        Q: AsRef<[u8]>,
    {
        ComputeMany {
            client: self.clone(),
            keys: keys.into_iter().collect(),
            ttl: TtlRule::given(ttl),
            policy: OkRule::new().policy(Sharing::none(), Errors::unreadable(), WithoutEquality),
            options: Options::new(),
            load,
            lifetime: PhantomData,
        }
    }
}

impl<K, V, E, C> ComputeMany<'_, K, V, E, C> {
    fn with(mut self, change: impl FnOnce(Options<Result<V, E>>) -> Options<Result<V, E>>) -> Self {
        self.options = change(self.options);
        self
    }

    /// Uses the near cache of this process, as [`Call::near`](super::Call::near).
    pub fn near(self) -> Self {
        self.with(|options| options.near(None))
    }

    /// The time after its lifetime for which a value is served to other callers while one caller loads it, as
    /// [`Call::stale_while`](super::Call::stale_while).
    pub fn stale_while(self, time: impl Lifetime) -> Self {
        self.with(|options| options.stale_while(time))
    }

    /// The time after its lifetime for which a value is served if loading it fails, as
    /// [`Call::stale_if_error`](super::Call::stale_if_error).
    pub fn stale_if_error(self, time: impl Lifetime) -> Self {
        self.with(|options| options.stale_if_error(time))
    }

    /// Shortens the lifetime of each value by a random part of up to `percent`; at most 50.
    pub fn jitter(self, percent: u8) -> Self {
        self.with(|options| options.jitter(percent))
    }

    /// Tags of all entries, as [`Call::tags`](super::Call::tags).
    pub fn tags(self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|options| options.tags(tags))
    }

    /// The nodes that must have the values before they count as stored.
    pub fn ack(self, ack: Ack) -> Self {
        self.with(|options| options.ack(ack))
    }

    /// The codec in which the values are stored, instead of the client's.
    pub fn codec(self, codec: Codec) -> Self {
        self.with(|options| options.codec(codec))
    }

    /// The time that nodes may take to answer the read, and the write, instead of the client's own bound. It does not
    /// bound the loader.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline(deadline))
    }
}

impl<'a, K, V, E, C, F, M, Q> IntoFuture for ComputeMany<'a, K, V, E, C>
where
    K: AsRef<[u8]> + Clone + Eq + Hash + Send + 'a,
    V: Cacheable + Send + 'a,
    E: 'a,
    C: FnMut(Vec<K>) -> F + Send + 'a,
    F: Future<Output = Result<M, E>> + Send + 'a,
    M: IntoIterator<Item = (Q, V)>,
    Q: AsRef<[u8]>,
{
    type Output = Result<HashMap<K, V>, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, keys, ttl, policy, options, mut load, .. } = self;
        let explicit = ExplicitKey { client: client.clone(), key: Bytes::new() };
        let call = CallTarget {
            site: &SITE,
            target: Target::client(client.clone()),
            identity: None,
            explicit: Some(Box::new(explicit)),
        };
        Box::pin(async move {
            let mut values = HashMap::with_capacity(keys.len());
            let shared = Shared { client, call, ttl, policy, options };
            let mut keys = keys.into_iter();
            while keys.len() > 0 {
                let mut group = Group::new(&shared, keys.by_ref().take(KEYS_MAX));
                group.complete(&mut load).await?;
                join_all(group.writes).await;
                values.extend(group.values);
            }
            Ok(values)
        })
    }
}
