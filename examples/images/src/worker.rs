//! Workers: fetch originals and make variants, each once for all processes of a region.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use zerocache_client::ZerocacheClient;
use zerocache_client::memo::LeaseScope;

use crate::call::Call;
use crate::capacity::Capacity;
use crate::clock::now;
use crate::convert::{Limits, convert};
use crate::failure::Failure;
use crate::fetch::Fetcher;
use crate::hosts::HostCapacity;
use crate::metrics::Metrics;
use crate::picture::{Picture, original_key, variant_key};
use crate::source::Source;
use crate::variant::Variant;

/// The life of a lease: longer than a fetch, the wait in the queue and a conversion.
const LEASE_LIFE: Duration = Duration::from_secs(30);

/// How long other processes wait for the one that has the lease, if their callers wait for so long.
const LEASE_WAIT: Duration = Duration::from_secs(25);

/// The percentage by which lifetimes differ, so that what was stored together does not end together.
const JITTER: u8 = 10;

/// The largest original that is stored, in bytes: below the 8 MiB that nodes allow for a value. Larger ones are
/// used, and fetched again for each variant that is not stored.
const STORED_BYTES_MAX: usize = 8_000_000;

/// The lifetimes of what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of originals and variants.
    pub fresh: Duration,
    /// Of variants after that, while a new one is made.
    pub stale_while: Duration,
    /// After that, if no new one can be made.
    pub stale_if_error: Duration,
    /// Of failures that last; zero stores none.
    pub failures: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(3_600),
            stale_while: Duration::from_secs(3_600),
            stale_if_error: Duration::from_secs(86_400),
            failures: Duration::from_secs(10),
        }
    }
}

/// A computation that owns what it uses.
type Computation = Pin<Box<dyn Future<Output = Result<Picture, Failure>> + Send>>;

/// A worker.
pub struct Worker {
    /// The cache.
    pub cache: ZerocacheClient,
    /// Fetches originals.
    pub fetcher: Fetcher,
    /// Conversions at once, and those that wait.
    pub conversions: Capacity,
    /// Fetches at once, and those that wait.
    pub fetches: Capacity,
    /// Fetches at once from each host, and those that wait. A redirect counts for the host that sent it.
    pub hosts: HostCapacity,
    /// What an original may cost.
    pub limits: Limits,
    /// Lifetimes in the cache.
    pub lifetimes: Lifetimes,
    /// Whether each request makes its own image, without a lease: to show what a lease is for.
    pub naive: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Worker {
    /// Returns a variant: from the cache, or made. It is made to its end if the caller goes away, and keeps the
    /// call's place until then.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn variant(
        self: &Arc<Self>,
        source: &Source,
        variant: &Variant,
        call: &Call,
    ) -> Result<Picture, Failure> {
        self.fetcher.rules().check(source.url())?;
        variant.check()?;
        let (worker, source, variant) = (Arc::clone(self), source.clone(), variant.clone());
        let owned = call.clone();
        let made = tokio::spawn(async move {
            let key = variant_key(&source, &variant);
            let make = {
                let (worker, source, call) = (Arc::clone(&worker), source.clone(), owned.clone());
                async move { worker.make(&source, &variant, &call).await }
            };
            let stale_while = worker.lifetimes.stale_while;
            worker.stored(&source, &key, stale_while, &owned, Box::pin(make)).await
        });
        outcome(made, call).await
    }

    /// Returns an original: from the cache, or fetched.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn original(
        self: &Arc<Self>,
        source: &Source,
        call: &Call,
    ) -> Result<Picture, Failure> {
        self.fetcher.rules().check(source.url())?;
        let (worker, source, owned) = (Arc::clone(self), source.clone(), call.clone());
        let fetched = tokio::spawn(async move { worker.load(&source, &owned).await });
        outcome(fetched, call).await
    }

    async fn load(self: &Arc<Self>, source: &Source, call: &Call) -> Result<Picture, Failure> {
        let fetch = {
            let (worker, source, call) = (Arc::clone(self), source.clone(), call.clone());
            async move { worker.fetch(&source, &call).await }
        };
        // Not an old one while a new one is fetched: a variant that is made from it would be kept as a new one.
        let stale_while = Duration::ZERO;
        self.stored(source, &original_key(source), stale_while, call, Box::pin(fetch)).await
    }

    /// Returns what is stored under a key, or computes it, once in the region.
    // Not an async function: the compiler does not see that a call is `Send` when it is part of one.
    fn stored(
        &self,
        source: &Source,
        key: &str,
        stale_while: Duration,
        of: &Call,
        compute: Computation,
    ) -> Computation {
        let Lifetimes { fresh, stale_if_error, failures, .. } = self.lifetimes;
        let call = self.cache.get_or_compute(key, fresh, || compute);
        if self.naive {
            return Box::pin(call.uncached());
        }
        let call = call
            .tags([source.tag(), source.host_tag()])
            .lease_within(LeaseScope::Region, LEASE_LIFE, LEASE_WAIT.min(of.left()))
            .stale_while(stale_while)
            .background()
            .stale_if_error(stale_if_error)
            .negative_err(Failure::is_lasting, failures)
            .cache_if(|picture: &Picture| picture.bytes.len() <= STORED_BYTES_MAX)
            .jitter(JITTER)
            .near()
            .share_errors();
        Box::pin(call)
    }

    async fn fetch(&self, source: &Source, call: &Call) -> Result<Picture, Failure> {
        // First the host's place: who waits for it takes no other place.
        let host = source.url().host_str().unwrap_or_default();
        let _of_host = self.hosts.acquire(host, call.deadline()).await?;
        let _permit = self.fetches.acquire(call.deadline()).await?;
        let begin = now();
        let fetched = self.fetcher.fetch(source).await;
        self.metrics.fetched(now() - begin, fetched.as_ref().err());
        let (kind, bytes) = fetched?;
        Ok(Picture::new(kind, (0, 0), bytes))
    }

    async fn make(
        self: &Arc<Self>,
        source: &Source,
        variant: &Variant,
        call: &Call,
    ) -> Result<Picture, Failure> {
        let original = self.load(source, call).await?;
        let permit = self.conversions.acquire(call.deadline()).await?;
        self.metrics.conversion_started();
        let (variant, limits, begin) = (variant.clone(), self.limits, now());
        let made = tokio::task::spawn_blocking(move || {
            let made = convert(&original.bytes, &variant, &limits);
            // Not before its end, whether or not somebody waits for it.
            drop(permit);
            made
        });
        // A decoder that panics does so for this image.
        let made = made.await.unwrap_or_else(|error| {
            tracing::error!(%error, source = %source.hash(), "conversion panicked");
            Err(Failure::Undecodable)
        });
        self.metrics.converted(now() - begin, made.as_ref().err());
        let made = made?;
        Ok(Picture::new(made.kind, (made.width, made.height), made.bytes))
    }
}

/// Waits for the outcome of a task as long as the call has time. The task continues to its end.
async fn outcome(
    task: JoinHandle<Result<Picture, Failure>>,
    call: &Call,
) -> Result<Picture, Failure> {
    match timeout_at(call.deadline().into(), task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            tracing::error!(%error, "task of an image panicked");
            Err(Failure::Internal)
        }
        Err(_) => Err(Failure::Timeout),
    }
}
