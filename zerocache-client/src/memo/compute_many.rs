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

use bytes::Bytes;
use futures_util::future::join_all;

use self::group::{Group, Shared};
use super::call_options::common_options;
use super::call_target::CallTarget;
use super::equality::{WithEquality, WithoutEquality};
use super::options::Options;
use super::rule::{Cacheable, Errors, OkRule, Policy, Sharing, encode_ok};
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::lifetime::Lifetime;

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

    common_options!();

    /// Compares the values with what is read back before they are stored, as [`Call::compared`](super::Call::compared).
    pub fn compared(mut self) -> Self
    where
        V: Cacheable + PartialEq,
    {
        self.policy.encode = encode_ok::<V, E, WithEquality>;
        self
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
        // Each key has a run of its own; the target names the kind of the calls.
        let call = CallTarget::explicit(&client, Bytes::new());
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
