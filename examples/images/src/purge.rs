//! Purges: everything of a URL, or of a host.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use serde_json::json;
use url::Host;
use zerocache_client::Ack;

use crate::api::{App, text};
use crate::clock::now;
use crate::failure::Failure;
use crate::responses::{json, json_failure};
use crate::source::{Source, host_tag};

/// The time after a purge in which nothing of its target is kept. A worker that does not know of the purge yet
/// (in another region, or with the original in its own memory) may make a variant from the old original. The purge
/// reaches connected regions within this time, and so such a variant ends with it.
pub const HOLD: Duration = Duration::from_secs(2);

/// Purges all variants and the original of a URL, or everything of a host.
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    target: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    match app.purge(target.query().unwrap_or_default(), &headers).await {
        Ok(answer) => answer,
        Err(failure) => {
            app.metrics.refused(&failure);
            json_failure(&failure)
        }
    }
}

impl App {
    async fn purge(&self, query: &str, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let sent = text(headers, &AUTHORIZATION).and_then(|sent| sent.strip_prefix("Bearer "));
        let allowed =
            self.purge_key.as_ref().is_some_and(|key| key.matches(sent.map(str::as_bytes)));
        if !allowed {
            return Err(Failure::Forbidden);
        }
        let wanted = PurgeParams::parse(query)?;
        let begin = now();
        let purge = self.cache.invalidate_tag(&wanted.tag).ack(wanted.ack).hold(HOLD);
        let purge = if wanted.soft { purge.soft() } else { purge };
        let written = purge.await.map_err(|error| {
            tracing::error!(%error, tag = wanted.tag, "purge failed");
            Failure::PurgeFailed
        })?;
        self.metrics.purged();
        tracing::info!(tag = wanted.tag, soft = wanted.soft, "purged");
        let body = json!({
            "tag": wanted.tag,
            "version": written.version.map(|version| version.to_string()),
            "replicas": written.replicas,
            "replicas_wanted": written.replicas_wanted,
            "ms": (now() - begin).as_secs_f64() * 1e3,
        });
        Ok(json(StatusCode::OK, HeaderMap::new(), &body))
    }
}

/// The parameters of a purge.
#[derive(Debug)]
struct PurgeParams {
    tag: String,
    ack: Ack,
    soft: bool,
}

impl PurgeParams {
    fn parse(query: &str) -> Result<Self, Failure> {
        let (mut tag, mut ack, mut soft) = (None, Ack::Region, false);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (name.as_ref(), value.as_ref()) {
                ("url", url) if tag.is_none() => tag = Some(Source::parse(url)?.tag()),
                ("host", host) if tag.is_none() => tag = Some(tag_of_host(host)?),
                ("ack", "local") => ack = Ack::Local,
                ("ack", "region") => ack = Ack::Region,
                ("ack", "all") => ack = Ack::All,
                ("soft", "0" | "1") => soft = value == "1",
                _ => {
                    return Err(Failure::bad(
                        "one of url and host, ack=local|region|all, soft=0|1 are allowed",
                    ));
                }
            }
        }
        let tag = tag.ok_or_else(|| Failure::bad("url or host: required"))?;
        Ok(Self { tag, ack, soft })
    }
}

/// Returns the tag of a host as it is in the URLs of originals: in ASCII, and in lower case.
fn tag_of_host(host: &str) -> Result<String, Failure> {
    let host = Host::parse(host).map_err(|_| Failure::bad("host: it is not a name or address"))?;
    Ok(host_tag(&host.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_purged_in_the_form_that_originals_have() {
        for host in ["bücher.de", "BÜCHER.de", "xn--bcher-kva.de", "[::1]", "127.0.0.1", "a.org."]
        {
            let source = Source::parse(&format!("http://{host}/a.jpg")).expect("a source");
            let query: String = url::form_urlencoded::byte_serialize(host.as_bytes()).collect();
            let purge = PurgeParams::parse(&format!("host={query}")).expect("a purge");
            assert_eq!(purge.tag, source.host_tag(), "{host}");
        }
        for wrong in ["", "a b", "a/b", "a:80", "[::1", "http://a"] {
            let parsed = PurgeParams::parse(&format!("host={wrong}"));
            assert!(matches!(parsed, Err(Failure::BadRequest(_))), "{wrong}");
        }
    }
}
