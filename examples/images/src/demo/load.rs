//! Requests, and what came of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::clock::now;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `hit` or `miss`.
    pub(super) cache: String,
    pub(super) worker: String,
    pub(super) took: Duration,
}

/// Requests an image.
pub(super) async fn get(http: &reqwest::Client, url: &str) -> Answer {
    let begin = now();
    let answered = async {
        let answer = http.get(url).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        answer.bytes().await?;
        Ok::<_, reqwest::Error>((status, headers))
    };
    let answered = answered.await;
    let took = now() - begin;
    let Ok((status, headers)) = answered else {
        return Answer { status: 0, cache: String::new(), worker: String::new(), took };
    };
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    Answer { status, cache: text("x-cache"), worker: text("x-images-worker"), took }
}

/// Requests images over a number of connections at once.
pub(super) async fn get_all(
    http: &reqwest::Client,
    urls: Vec<String>,
    connections: usize,
) -> Vec<Answer> {
    let permits = Arc::new(Semaphore::new(connections));
    let mut running = JoinSet::new();
    for url in urls {
        let (http, permits) = (http.clone(), Arc::clone(&permits));
        running.spawn(async move {
            let _permit = permits.acquire().await;
            get(&http, &url).await
        });
    }
    running.join_all().await
}

/// Requests `per_second` images for a time, each when it is due. `url` makes the URL of the request of a number.
pub(super) async fn at_rate(
    http: &reqwest::Client,
    per_second: u32,
    time: Duration,
    mut url: impl FnMut(usize) -> String,
) -> Vec<Answer> {
    let begin = now();
    let mut running = JoinSet::new();
    let count = (f64::from(per_second) * time.as_secs_f64()) as usize;
    for number in 0..count {
        let due = begin + Duration::from_secs_f64(number as f64 / f64::from(per_second));
        sleep_until(due.into()).await;
        let (http, url) = (http.clone(), url(number));
        running.spawn(async move { get(&http, &url).await });
    }
    running.join_all().await
}

/// The answers that are not 200.
pub(super) fn failed(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status != 200).count()
}

/// The time within which a share of the times is, in milliseconds.
pub(super) fn percentile(mut times: Vec<Duration>, share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// The sum of a counter over all its labels, of what a process says to Prometheus.
pub(super) async fn metric(http: &reqwest::Client, process: SocketAddr, name: &str) -> Result<u64> {
    let text = http.get(format!("http://{process}/metrics")).send().await?.text().await?;
    anyhow::ensure!(
        text.trim_end().ends_with("# EOF"),
        "{process} does not say all of its metrics"
    );
    let mut sum = 0.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) =
            line.rsplit_once(' ').with_context(|| format!("not a sample: {line}"))?;
        let value: f64 = value.parse().with_context(|| format!("not a number: {line}"))?;
        let of = series.split('{').next().unwrap_or_default();
        sum += if of == name { value } else { 0.0 };
    }
    Ok(sum as u64)
}

/// Numbers from 0, the lower ones far more often: the n-th as often as 1/n.
pub(super) struct Zipf {
    weights: Vec<f64>,
    state: u64,
}

impl Zipf {
    pub(super) fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=count).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        Self { weights: weights.collect(), state: 0x2545_f491_4f6c_dd1d }
    }

    pub(super) fn draw(&mut self) -> usize {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random =
            (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64;
        let point = random * self.weights.last().copied().unwrap_or(1.0);
        self.weights
            .partition_point(|weight| *weight < point)
            .min(self.weights.len().saturating_sub(1))
    }
}
