//! Gateways: look for an image in the cache, and ask a worker if it is not there.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName};
use zerocache_client::ZerocacheClient;

use crate::clock::now;
use crate::failure::Failure;
use crate::internal::{self, KEY_HEADER, Wanted};
use crate::metrics::{Metrics, Outcome};
use crate::picture::{Picture, original_key, variant_key};
use crate::placement::{WorkerAddress, Workers};
use crate::source::{Source, SourceRules};
use crate::variant::Variant;
use crate::worker::Worker;

/// The longest look-up: after that the image is made as if there were no cache.
const LOOKUP_MAX: Duration = Duration::from_millis(500);

/// The longest time to connect to a worker.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// The longest wait for a worker: a fetch, the wait for another worker's lease, and a conversion.
const WORKER_MAX: Duration = Duration::from_secs(30);

/// The most workers that are asked for one image.
const WORKERS_ASKED_MAX: usize = 3;

/// An image, and how it was found.
#[derive(Debug)]
pub struct Answer {
    /// The image.
    pub picture: Picture,
    /// Whether it was in the cache.
    pub outcome: Outcome,
    /// The worker that was asked.
    pub worker: Option<String>,
}

/// The reason for which a worker gave no image.
enum Refusal {
    /// It answered, and so would every other one.
    Final(Failure),
    /// It did not answer as a worker.
    Unreachable,
}

/// A gateway.
pub struct Gateway {
    cache: ZerocacheClient,
    sources: SourceRules,
    workers: Arc<Mutex<Workers>>,
    /// The worker in this process, by its name.
    local: Option<(String, Arc<Worker>)>,
    http: reqwest::Client,
    key: String,
    /// Whether nothing is looked up, for comparison.
    naive: bool,
    metrics: Arc<Metrics>,
}

impl Gateway {
    /// Creates a gateway. `key` is what workers are told.
    ///
    /// # Errors
    /// If the client for workers cannot be built.
    pub fn new(
        cache: ZerocacheClient,
        sources: SourceRules,
        workers: Arc<Mutex<Workers>>,
        local: Option<(String, Arc<Worker>)>,
        key: String,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(WORKER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { cache, sources, workers, local, http, key, naive: false, metrics })
    }

    /// Looks nothing up in the cache, to show what it is for.
    #[must_use]
    pub fn naive(mut self, naive: bool) -> Self {
        self.naive = naive;
        self
    }

    /// The number of workers that can be asked.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.lock().known().len().max(usize::from(self.local.is_some()))
    }

    /// Returns a variant.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn variant(&self, source: &Source, variant: &Variant) -> Result<Answer, Failure> {
        self.find(source, &variant_key(source, variant), Some(variant)).await
    }

    /// Returns an original.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn original(&self, source: &Source) -> Result<Answer, Failure> {
        self.find(source, &original_key(source), None).await
    }

    async fn find(
        &self,
        source: &Source,
        key: &str,
        variant: Option<&Variant>,
    ) -> Result<Answer, Failure> {
        self.sources.check(source.url())?;
        if self.naive {
            return self.ask(source, variant).await;
        }
        // What the cache cannot answer is made: an unreachable cache is slow, not down.
        let found = self.cache.get(key).near().deadline(LOOKUP_MAX).value::<Picture>().await;
        if let Ok(Some(picture)) = found {
            return Ok(Answer { picture, outcome: Outcome::Hit, worker: None });
        }
        self.ask(source, variant).await
    }

    async fn ask(&self, source: &Source, variant: Option<&Variant>) -> Result<Answer, Failure> {
        let ranked = self.workers.lock().for_original(source.hash(), now());
        for worker in ranked.into_iter().take(WORKERS_ASKED_MAX) {
            if let Some((name, local)) = &self.local
                && *name == worker.name
            {
                return self.ask_local(name, local, source, variant).await;
            }
            match self.ask_remote(&worker, source, variant).await {
                Ok(picture) => {
                    return Ok(Answer {
                        picture,
                        outcome: Outcome::Miss,
                        worker: Some(worker.name),
                    });
                }
                Err(Refusal::Final(failure)) => return Err(failure),
                Err(Refusal::Unreachable) => {
                    self.metrics.worker_failed();
                    self.workers.lock().note_failure(&worker.name, now());
                }
            }
        }
        match &self.local {
            Some((name, local)) => self.ask_local(name, local, source, variant).await,
            None => Err(Failure::NoWorker),
        }
    }

    async fn ask_local(
        &self,
        name: &str,
        local: &Arc<Worker>,
        source: &Source,
        variant: Option<&Variant>,
    ) -> Result<Answer, Failure> {
        let picture = match variant {
            Some(variant) => local.variant(source, variant).await?,
            None => local.original(source).await?,
        };
        Ok(Answer { picture, outcome: Outcome::Miss, worker: Some(name.to_owned()) })
    }

    async fn ask_remote(
        &self,
        worker: &WorkerAddress,
        source: &Source,
        variant: Option<&Variant>,
    ) -> Result<Picture, Refusal> {
        let wanted = Wanted { url: source.url().to_string(), variant: variant.cloned() };
        let body = serde_json::to_vec(&wanted).map_err(|_| Refusal::Final(Failure::Internal))?;
        let url = format!("http://{}{}", worker.address, internal::PATH);
        let sent = self.http.post(url).header(KEY_HEADER, &self.key).body(body).send().await;
        let unreachable = |error: reqwest::Error| {
            tracing::warn!(worker = worker.name, %error, "worker did not answer");
            Refusal::Unreachable
        };
        let answer = sent.map_err(unreachable)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = |name: HeaderName| header_text(&headers, &name);
        // Bounded by the worker's own limits; a worker is trusted.
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if status == 200 {
            return internal::picture(text, bytes.into()).ok_or(Refusal::Unreachable);
        }
        match internal::failure(status, &bytes) {
            Some(failure) => Err(Refusal::Final(failure)),
            None => {
                tracing::error!(worker = worker.name, status, "worker refused this gateway");
                Err(Refusal::Unreachable)
            }
        }
    }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
