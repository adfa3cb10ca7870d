//! Shared by the tests.
#![allow(dead_code, missing_docs, reason = "no test uses all of it")]

pub mod origin;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use images::service::Service;
use images::settings::{Secrets, ServeArgs};
use origin::Origin;
use zerocache_client::ZerocacheClient;
use zerocache_server::EmbeddedNode;
use zerocache_server::config::{DiscoverySet, ServerConfig};

pub const WORKER_KEY: &str = "the key of gateways and workers";
pub const PURGE_KEY: &str = "the key of those who purge";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Settings for tests: any port, and originals from loopback.
pub fn args(more: &[&str]) -> ServeArgs {
    let base =
        ["images", "--listen=127.0.0.1:0", "--allow-networks=127.0.0.0/8", "--allow-ports=1-65535"];
    Cli::parse_from(base.into_iter().chain(more.iter().copied())).serve
}

pub fn secrets() -> Secrets {
    let secret = |text: &str| Some(text.to_owned());
    Secrets { worker_key: secret(WORKER_KEY), purge_key: secret(PURGE_KEY), signing_keys: None }
}

pub fn node(region: &str, seeds: &[SocketAddr]) -> EmbeddedNode {
    let mut config = ServerConfig::new(region);
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.discovery = if seeds.is_empty() { DiscoverySet::NONE } else { DiscoverySet::SEEDS };
    config.seeds = seeds.iter().map(|seed| (*seed).try_into().expect("a seed")).collect();
    config.max_bytes = 256 << 20;
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node")
}

pub async fn client(region: &str, node: SocketAddr) -> ZerocacheClient {
    let cache = ZerocacheClient::builder(region)
        .mdns(false)
        .seed(node.to_string())
        .build()
        .expect("a client");
    cache.ready(Duration::from_secs(5)).await.expect("ready");
    cache
}

/// An origin, a node and a process of the service.
pub struct Setup {
    pub origin: Origin,
    pub node: EmbeddedNode,
    pub service: Service,
    pub http: reqwest::Client,
}

impl Setup {
    pub async fn new(more: &[&str]) -> Self {
        let secrets = Secrets { worker_key: None, ..secrets() };
        Self::with_secrets(more, secrets).await
    }

    pub async fn with_secrets(more: &[&str], secrets: Secrets) -> Self {
        let (origin, node) = (Origin::start().await, node("london", &[]));
        let cache = client("london", node.address()).await;
        let service = Service::start(args(more), secrets, cache).await.expect("a service");
        Self { origin, node, service, http: reqwest::Client::new() }
    }

    /// The URL of an image of the origin.
    pub fn image(&self, path: &str, params: &str) -> String {
        image(self.service.address(), &self.origin, path, params)
    }

    pub async fn get(&self, url: &str) -> Got {
        get(&self.http, url, &[]).await
    }

    pub async fn metric(&self, name: &str) -> u64 {
        metric(&self.http, self.service.address(), name).await
    }
}

pub fn image(service: SocketAddr, origin: &Origin, path: &str, params: &str) -> String {
    let url: String = url::form_urlencoded::byte_serialize(origin.url(path).as_bytes()).collect();
    format!("http://{service}/image?url={url}{params}")
}

/// An answer.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// The code of an error.
    pub fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.bytes).expect("JSON");
        body["error"].as_str().expect("a code").to_owned()
    }

    pub fn size(&self) -> (u32, u32) {
        let pixels = ::image::load_from_memory(&self.bytes).expect("an image");
        (pixels.width(), pixels.height())
    }
}

pub async fn get(http: &reqwest::Client, url: &str, headers: &[(&str, &str)]) -> Got {
    let request =
        headers.iter().fold(http.get(url), |request, (name, value)| request.header(*name, *value));
    got(request.send().await.expect("an answer")).await
}

pub async fn got(answer: reqwest::Response) -> Got {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Got { status, headers, bytes: answer.bytes().await.expect("a body").to_vec() }
}

/// The sum of a counter over all its labels.
pub async fn metric(http: &reqwest::Client, service: SocketAddr, name: &str) -> u64 {
    let text = get(http, &format!("http://{service}/metrics"), &[]).await.bytes;
    let text = String::from_utf8(text).expect("a text");
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
    });
    lines
        .map(|line| {
            line.rsplit(' ').next().expect("a number").parse::<f64>().expect("a number") as u64
        })
        .sum()
}

pub async fn purge(http: &reqwest::Client, service: SocketAddr, query: &str) -> Got {
    let request = http.post(format!("http://{service}/purge?{query}"));
    got(request
        .header("authorization", format!("Bearer {PURGE_KEY}"))
        .send()
        .await
        .expect("an answer"))
    .await
}
