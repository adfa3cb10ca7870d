//! Updates in one region, and the time until every process shows them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::header::CONTENT_TYPE;
use tokio::task::JoinSet;

use crate::api::Price;
use crate::clock::now;
use crate::queries::ProductPage;

/// The time after which an old price counts as a failure. A safety net, not a promise.
const SHOWN_MAX: Duration = Duration::from_secs(10);

/// The pause between two reads of a page.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One update and its effect.
#[derive(Clone, Debug)]
pub struct Update {
    /// The product.
    pub product: u32,
    /// The duration of the request, including the invalidation.
    pub took: Duration,
    /// The time from sending the update until each process showed the new price; none if it did not
    /// within ten seconds. In the order of the processes.
    pub shown: Vec<Option<Duration>>,
}

/// Sets a product's price through one process, and watches its page at others.
///
/// # Errors
/// If a process does not answer as expected.
pub async fn update(
    http: &reqwest::Client,
    product: u32,
    at: SocketAddr,
    watched: &[SocketAddr],
) -> Result<Update> {
    let mut watches = JoinSet::new();
    let old = price(http, at, product).await?;
    let new = old + 1;
    for process in watched {
        // The page is in the cache, as that of a popular product is.
        ensure!(price(http, *process, product).await? == old, "another price at {process}");
    }
    let sent = now();
    for (number, process) in watched.iter().copied().enumerate() {
        let http = http.clone();
        watches.spawn(async move {
            let shown = until_shown(&http, process, product, new, sent);
            (number, tokio::time::timeout(SHOWN_MAX, shown).await.ok())
        });
    }
    let body = serde_json::to_vec(&Price { price_cents: new })?;
    let request = http.put(format!("http://{at}/products/{product}")).body(body);
    let answer = request.header(CONTENT_TYPE, "application/json").send().await?;
    ensure!(answer.status() == 204, "an update is answered with {}", answer.status());
    let took = now().duration_since(sent);
    let mut shown = vec![None; watched.len()];
    for (number, when) in watches.join_all().await {
        shown[number] = when.transpose()?;
    }
    Ok(Update { product, took, shown })
}

async fn until_shown(
    http: &reqwest::Client,
    process: SocketAddr,
    product: u32,
    new: i64,
    sent: Instant,
) -> Result<Duration> {
    while price(http, process, product).await? != new {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(now().duration_since(sent))
}

async fn price(http: &reqwest::Client, process: SocketAddr, product: u32) -> Result<i64> {
    let answer = http.get(format!("http://{process}/products/{product}")).send().await?;
    let page: ProductPage =
        serde_json::from_slice(&answer.bytes().await?).context("a page that is none")?;
    Ok(page.price_cents)
}
