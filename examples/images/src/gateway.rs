//! Gateways: look for an image in the cache, and ask a worker if it is not there.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName};
use zerocache_client::ZerocacheClient;

use crate::call::Call;
use crate::clock::now;
use crate::failure::Failure;
use crate::internal::{self, KEY_HEADER, TIME_HEADER, Wanted};
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

/// The part of the time that a worker does not get, so that its answer arrives in time.
const TIME_RESERVED: Duration = Duration::from_millis(100);

/// The most bytes of a variant: the largest one, as a PNG that could not be compressed, takes 59 MB.
const VARIANT_BYTES_MAX: usize = 64 << 20;

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
    /// It cannot be reached, its connection broke, or it is not a worker of this gateway.
    Unreachable,
    /// It said nothing until the time was over.
    Silent,
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
    answer_bytes_max: usize,
    metrics: Arc<Metrics>,
}

impl Gateway {
    /// Creates a gateway. `key` is sent to workers.
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
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let answer_bytes_max = VARIANT_BYTES_MAX;
        Ok(Self {
            cache,
            sources,
            workers,
            local,
            http,
            key,
            naive: false,
            answer_bytes_max,
            metrics,
        })
    }

    /// Accepts originals of this many bytes from workers.
    #[must_use]
    pub fn original_bytes(mut self, most: usize) -> Self {
        self.answer_bytes_max = most.max(VARIANT_BYTES_MAX);
        self
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
    pub async fn variant(
        &self,
        source: &Source,
        variant: &Variant,
        call: &Call,
    ) -> Result<Answer, Failure> {
        self.find(source, &variant_key(source, variant), Some(variant), call).await
    }

    /// Returns an original.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn original(&self, source: &Source, call: &Call) -> Result<Answer, Failure> {
        self.find(source, &original_key(source), None, call).await
    }

    async fn find(
        &self,
        source: &Source,
        key: &str,
        variant: Option<&Variant>,
        call: &Call,
    ) -> Result<Answer, Failure> {
        self.sources.check(source.url())?;
        if self.naive {
            return self.ask(source, variant, call).await;
        }
        // What the cache cannot answer is made: an unreachable cache is slow, not down.
        let deadline = LOOKUP_MAX.min(call.left());
        match self.cache.get(key).near().deadline(deadline).value::<Picture>().await {
            Ok(Some(picture)) => {
                return Ok(Answer { picture, outcome: Outcome::Hit, worker: None });
            }
            Ok(None) => {}
            Err(error) => {
                self.metrics.lookup_failed();
                tracing::warn!(%error, "lookup failed; the image is made");
            }
        }
        self.ask(source, variant, call).await
    }

    async fn ask(
        &self,
        source: &Source,
        variant: Option<&Variant>,
        call: &Call,
    ) -> Result<Answer, Failure> {
        let ranked = self.workers.lock().for_original(source.hash(), now());
        for worker in ranked.into_iter().take(WORKERS_ASKED_MAX) {
            if let Some((name, local)) = &self.local
                && *name == worker.name
            {
                return self.ask_local(name, local, source, variant, call).await;
            }
            let begin = now();
            let answer = self.ask_remote(&worker, source, variant, call).await;
            if matches!(answer, Err(Refusal::Unreachable | Refusal::Silent)) {
                self.metrics.worker_failed();
                let end = now();
                self.workers.lock().note_failure(&worker.name, end, end - begin);
            }
            match answer {
                Ok(picture) => {
                    return Ok(Answer {
                        picture,
                        outcome: Outcome::Miss,
                        worker: Some(worker.name),
                    });
                }
                Err(Refusal::Final(failure)) => return Err(failure),
                // Another one has no time, either.
                Err(Refusal::Silent) => return Err(Failure::Timeout),
                Err(Refusal::Unreachable) => {}
            }
        }
        match &self.local {
            Some((name, local)) => self.ask_local(name, local, source, variant, call).await,
            None => Err(Failure::NoWorker),
        }
    }

    async fn ask_local(
        &self,
        name: &str,
        local: &Arc<Worker>,
        source: &Source,
        variant: Option<&Variant>,
        call: &Call,
    ) -> Result<Answer, Failure> {
        let picture = match variant {
            Some(variant) => local.variant(source, variant, call).await?,
            None => local.original(source, call).await?,
        };
        Ok(Answer { picture, outcome: Outcome::Miss, worker: Some(name.to_owned()) })
    }

    async fn ask_remote(
        &self,
        worker: &WorkerAddress,
        source: &Source,
        variant: Option<&Variant>,
        call: &Call,
    ) -> Result<Picture, Refusal> {
        let wanted = Wanted { url: source.url().to_string(), variant: variant.cloned() };
        let body = serde_json::to_vec(&wanted).map_err(|_| Refusal::Final(Failure::Internal))?;
        let left = call.left();
        let time = left.saturating_sub(TIME_RESERVED).as_millis();
        if time == 0 {
            return Err(Refusal::Final(Failure::Timeout));
        }
        let url = format!("http://{}{}", worker.address, internal::PATH);
        let request = self.http.post(url).timeout(left).header(KEY_HEADER, &self.key);
        let sent = request.header(TIME_HEADER, time.to_string()).body(body).send().await;
        let answer = sent.map_err(|error| refusal(worker, &error))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = |name: HeaderName| header_text(&headers, &name);
        let body = Limited::new(reqwest::Body::from(answer), self.answer_bytes_max);
        let bytes = body.collect().await.map_err(|error| match error.downcast_ref() {
            Some(error) => refusal(worker, error),
            None => {
                tracing::error!(worker = worker.name, %error, "answer of a worker is too long");
                Refusal::Final(Failure::Internal)
            }
        })?;
        let bytes = bytes.to_bytes();
        if status == 200 {
            return internal::picture(text, bytes.into()).ok_or_else(|| {
                tracing::error!(worker = worker.name, "answer is not that of a worker");
                Refusal::Unreachable
            });
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

/// Says whether another worker is asked: not after a timeout, since the first one is still at work.
fn refusal(worker: &WorkerAddress, error: &reqwest::Error) -> Refusal {
    // Its causes, too: its own text has none.
    let causes: &(dyn std::error::Error + 'static) = error;
    tracing::warn!(worker = worker.name, error = causes, "worker did not answer");
    if error.is_timeout() && !error.is_connect() { Refusal::Silent } else { Refusal::Unreachable }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
