//! `/metrics`: the metrics of this node for Prometheus.

use std::{sync::Arc, time::UNIX_EPOCH};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, header},
};
use bytes::Bytes;
use tokio::sync::Mutex;
use zerocache_core::{access::Operation, time::Instant};
use zerocache_net::clock;

use super::{Api, error::ApiError, stats};
use crate::{
    access::Caller,
    telemetry::prometheus::{self, Format, Surroundings},
};

/// How old a text may be that another scrape has made, in milliseconds.
const AGE_MS_MAX: u64 = 1_000;

/// The last text in each format. Whoever makes one holds the lock: scrapes that come meanwhile wait for it and
/// take it, so that any number of them costs as much as one.
#[derive(Debug, Default)]
pub struct LastScrape(Mutex<[Option<(Instant, Bytes)>; 2]>);

impl LastScrape {
    /// Returns a text: that of `make`, or one that another caller made meanwhile.
    async fn text(&self, format: Format, make: impl FnOnce() -> String) -> Bytes {
        let (mut texts, must_be_new) = match self.0.try_lock() {
            Ok(texts) => (texts, true),
            Err(_) => (self.0.lock().await, false),
        };
        let now = clock::mono();
        let last = &mut texts[format as usize];
        if let Some((made, text)) = last
            && !must_be_new
            && now.since_ms(*made) < AGE_MS_MAX
        {
            return text.clone();
        }
        let text = Bytes::from(make());
        *last = Some((now, text.clone()));
        text
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 2], Bytes), ApiError> {
    api.permit(&caller, Operation::Monitor)?;
    let accept: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted_by(Some(&accept.join(",")));
    let text = api.scrape.text(format, || render(&api, format)).await;
    let headers =
        [(header::CONTENT_TYPE, format.content_type()), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, text))
}

fn render(api: &Api, format: Format) -> String {
    let end = api.access.security().certificate_end();
    let surroundings = Surroundings {
        sources: api.driver.sources(),
        // One that the node replaces in time would only seem to run out.
        certificate_expires_s: end
            .filter(|(_, is_renewed)| !is_renewed)
            .map(|(end, _)| end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    };
    prometheus::render(&stats::sample(api), &surroundings, format)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn scrapes_that_wait_take_the_text_of_the_first() {
        let (last, made) = (LastScrape::default(), AtomicUsize::new(0));
        let make = || format!("text {}", made.fetch_add(1, SeqCst));
        assert_eq!(last.text(Format::Text, make).await, "text 0");
        // A single caller always gets a new one.
        assert_eq!(last.text(Format::Text, make).await, "text 1");
        let held = last.0.lock().await;
        let mut waiting: Vec<_> =
            (0..20).map(|_| Box::pin(last.text(Format::Text, make))).collect();
        let mut other = Box::pin(last.text(Format::OpenMetrics, make));
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert!((&mut other).now_or_never().is_none());
        drop(held);
        assert!(join_all(waiting).await.iter().all(|text| text == "text 1"));
        assert_eq!(other.await, "text 2");
    }

    #[tokio::test]
    async fn text_of_long_ago_is_made_again() {
        let last = LastScrape::default();
        let long_ago = clock::mono();
        let mut held = last.0.lock().await;
        let mut waiting = Box::pin(last.text(Format::Text, || "new".to_owned()));
        assert!((&mut waiting).now_or_never().is_none());
        held[0] = Some((long_ago, Bytes::from_static(b"old")));
        drop(held);
        tokio::time::sleep(std::time::Duration::from_millis(AGE_MS_MAX + 50)).await;
        assert_eq!(waiting.await, "new");
    }
}
