//! What commands that talk to nodes share: the settings, a runtime, and requests over HTTP.

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use zerocache_client::{ClientBuilder, ZerocacheClient};
use zerocache_core::{call::CallFailure, name::NAME_BYTES_MAX};
use zerocache_net::{
    discovery::{DiscoveryConfig, HostPort},
    security::{Security, SecurityConfig},
    transport::{HttpResponse, http_request},
};

use crate::{
    args::Global,
    exit::Exit,
    failure::{Failure, call_failure},
    survey,
};

/// The region of a client that asks nodes over HTTP only, where it has none.
const NO_REGION: &str = "tool";

/// The most characters of a node's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 300;

/// What a command works with.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) discovery: DiscoveryConfig,
    pub(crate) security: Security,
    /// What the security was read from.
    pub(crate) credentials: SecurityConfig,
    pub(crate) runtime: Runtime,
}

impl Context {
    /// Reads the settings.
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
        let builder = builder(&global, NO_REGION)?;
        let (discovery, credentials) = builder.connection_settings();
        let security = {
            let _inside = runtime.enter();
            Security::load(credentials.clone())
                .map_err(|error| Failure::usage(error.to_string()))?
        };
        Ok(Self { global, discovery, security, credentials, runtime })
    }

    /// Returns a client that knows a node.
    pub(crate) fn client(&self) -> Result<ZerocacheClient, Failure> {
        let region = match self.global.variable("ZEROCACHE_REGION") {
            Some(region) => region,
            None => self.runtime.block_on(survey::first(self, |_| true))?.region().to_owned(),
        };
        let client = builder(&self.global, &region)?.total_timeout(self.global.timeout).build()?;
        client.wait_ready(self.global.timeout)?;
        Ok(client)
    }

    /// Returns the name of the cluster that is asked.
    pub(crate) fn cluster(&self) -> &str {
        &self.discovery.cluster
    }

    /// Returns the address of a node that was named.
    pub(crate) async fn resolve(&self, node: &HostPort) -> Result<SocketAddr, Failure> {
        let addresses = lookup(node, self.global.timeout).await;
        let addresses = addresses.map_err(|why| Failure::unreachable(format!("{node}: {why}")))?;
        let first = addresses.first().copied();
        first.ok_or_else(|| Failure::unreachable(format!("{node}: the name has no address")))
    }

    /// Sends a request of the HTTP API to a node.
    pub(crate) async fn request(
        &self,
        to: SocketAddr,
        request: (Method, &str, Bytes),
    ) -> Result<HttpResponse, CallFailure> {
        self.request_with(to, request, HeaderMap::new()).await
    }

    /// Sends a request of the HTTP API to a node, with headers.
    pub(crate) async fn request_with(
        &self,
        to: SocketAddr,
        request: (Method, &str, Bytes),
        headers: HeaderMap,
    ) -> Result<HttpResponse, CallFailure> {
        http_request(to, request, headers, self.global.timeout, &self.security).await
    }

    /// Returns the document that a node answers a GET with, as a future of its own.
    pub(crate) fn document(
        &self,
        to: SocketAddr,
        target: String,
    ) -> impl Future<Output = Result<Json, Failure>> + Send + use<> {
        let (timeout, security) = (self.global.timeout, self.security.clone());
        async move {
            let request = (Method::GET, target.as_str(), Bytes::new());
            let headers = HeaderMap::new();
            let response = http_request(to, request, headers, timeout, &security).await;
            parse_json(to, &response.map_err(|failure| no_answer(to, failure))?)
        }
    }
}

/// Returns the addresses of a name.
pub(crate) async fn lookup(name: &HostPort, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((name.host(), name.port()));
    match tokio::time::timeout(timeout, found).await {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<_> = addresses.collect();
            addresses.sort_unstable();
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name was not resolved in time".to_owned()),
    }
}

/// The failure of a node that did not answer.
pub(crate) fn no_answer(to: SocketAddr, failure: CallFailure) -> Failure {
    Failure::unreachable(format!("{to}: {}", call_failure(failure)))
}

/// Returns the document of a response, or the error that it is.
pub(crate) fn parse_json(to: SocketAddr, response: &HttpResponse) -> Result<Json, Failure> {
    let body: Json = serde_json::from_slice(&response.body).unwrap_or_default();
    match response.status {
        StatusCode::OK if body.is_object() => Ok(body),
        _ => Err(refusal(to, response, &body)),
    }
}

/// Returns the failure that an error response is.
pub(crate) fn refusal(to: SocketAddr, response: &HttpResponse, body: &Json) -> Failure {
    let message = body["message"].as_str().map_or_else(
        || format!("unexpected answer {}", response.status),
        |message| message.chars().take(MESSAGE_CHARS_MAX).collect(),
    );
    let exit = match response.status {
        // A node that takes encrypted connections only.
        _ if body["code"] == "tls_required" => Exit::DENIED,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::DENIED,
        StatusCode::BAD_REQUEST => Exit::USAGE,
        _ => Exit::NOTHING,
    };
    Failure::with(exit, format!("{to}: {message}"))
}

fn builder(global: &Global, region: &str) -> Result<ClientBuilder, Failure> {
    if region.len() > NAME_BYTES_MAX {
        return Err(Failure::usage(format!("ZEROCACHE_REGION: at most {NAME_BYTES_MAX} bytes")));
    }
    Ok(ZerocacheClient::builder_from_variables(region, |name| global.variable(name))?)
}
