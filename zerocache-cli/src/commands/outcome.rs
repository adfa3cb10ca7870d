//! The outcome of a write, as a client or a node states it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header::ETAG};
use serde_json::{Value as Json, json};
use zerocache_client::{Ack, Status, Written, ops::ConditionalOutcome};
use zerocache_core::call::CallFailure;
use zerocache_net::transport::http_request;

use super::entries::describe_key;
use crate::{
    args::WhoHasIt,
    context::{Context, no_answer, refusal},
    exit::Exit,
    failure::Failure,
    say,
};

/// How long a node may take to ask every other one (contract section 3: 2 s, and the last question).
const EACH_NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// The status of a write whose condition does not hold. Its version is that of the value that is there.
const NOT_MET: &str = "not-met";

/// The outcome of a write.
pub(super) struct Outcome {
    pub(super) key: Bytes,
    status: String,
    replicas: u64,
    replicas_wanted: u64,
    version: Option<String>,
    /// Where every node was waited for: who has the write. Null if the node that was asked had too much to do.
    nodes: Option<Json>,
}

impl Outcome {
    /// The outcome that a client states.
    pub(super) fn new(key: Bytes, written: &Written) -> Self {
        Self {
            key,
            status: written.status.as_str().to_owned(),
            replicas: written.replicas.into(),
            replicas_wanted: written.replicas_wanted.into(),
            version: written.version.map(|version| version.to_string()),
            nodes: None,
        }
    }

    /// The outcome of a write on a condition that a client states.
    pub(super) fn conditional(key: Bytes, outcome: &ConditionalOutcome) -> Self {
        let (status, current) = match outcome {
            ConditionalOutcome::Stored(written) => return Self::new(key, written),
            ConditionalOutcome::NotMet { current } => (NOT_MET, *current),
            ConditionalOutcome::Superseded => (Status::Superseded.as_str(), None),
            ConditionalOutcome::Refused => (Status::Refused.as_str(), None),
            _ => (Status::Unknown.as_str(), None),
        };
        Self::unwritten(key, status, current.map(|version| version.to_string()))
    }

    /// The outcome of a write that no replica has. `current` is the version that kept it from being made.
    fn unwritten(key: Bytes, status: &str, current: Option<String>) -> Self {
        let (replicas, replicas_wanted, nodes) = (0, 1, None);
        Self { key, status: status.to_owned(), replicas, replicas_wanted, version: current, nodes }
    }

    /// Returns the exit code: bad news where a node was waited for that does not have the write.
    pub(super) fn exit(&self) -> Exit {
        let is_lacked =
            self.nodes.as_ref().is_some_and(Json::is_null) || self.lacking().count() > 0;
        match self.status.as_str() {
            status if status == Status::Stored.as_str() && is_lacked => Exit::BAD_NEWS,
            status if status == Status::Stored.as_str() => Exit::DONE,
            status if status == Status::Unknown.as_str() => Exit::UNKNOWN,
            _ => Exit::NOTHING,
        }
    }

    pub(super) fn to_line(&self) -> String {
        let version = self.version.as_deref().unwrap_or("-");
        format!("{} {}/{} {version}", self.status, self.replicas, self.replicas_wanted)
    }

    pub(super) fn to_json(&self) -> Json {
        let mut json = json!({
            "status": self.status,
            "replicas": self.replicas,
            "replicas_wanted": self.replicas_wanted,
            "version": self.version,
        });
        if let Some(nodes) = &self.nodes {
            json["nodes"] = nodes.clone();
        }
        // A purge has no key.
        if !self.key.is_empty() {
            describe_key(&mut json, &self.key);
        }
        json
    }

    /// Says which nodes do not have the write. They get it as any write.
    pub(super) fn say_lacking(&self) {
        for node in self.lacking() {
            let [region, address, state] =
                ["region", "address", "state"].map(|name| node[name].as_str().unwrap_or("-"));
            say(&format!("{region} {address} does not have it yet: {state}"));
        }
        if self.nodes.as_ref().is_some_and(Json::is_null) {
            say("the node had too much to do to ask the others");
        }
    }

    fn lacking(&self) -> impl Iterator<Item = &Json> {
        let nodes = self.nodes.iter().filter_map(Json::as_array).flatten();
        nodes.filter(|node| node["acknowledged"] != true)
    }
}

/// Returns the word by which the HTTP API knows who is to have a write.
pub(super) const fn ack(who: WhoHasIt) -> &'static str {
    match who {
        WhoHasIt::Ack(Ack::Region) => "region",
        WhoHasIt::Ack(Ack::All) => "all",
        WhoHasIt::EachNode => "nodes",
        // The parser makes no other.
        WhoHasIt::Ack(_) => "local",
    }
}

/// Writes over HTTP at the node of an address.
pub(super) async fn write_at(
    context: &Context,
    to: SocketAddr,
    key: Bytes,
    (request, headers): ((Method, &str, Bytes), HeaderMap),
    who: WhoHasIt,
) -> Result<Outcome, Failure> {
    let timeout = match who {
        WhoHasIt::EachNode => context.global.timeout.max(EACH_NODE_TIMEOUT),
        WhoHasIt::Ack(_) => context.global.timeout,
    };
    let response = http_request(to, request, headers, timeout, &context.security).await;
    let response = response.map_err(|failure| match failure {
        CallFailure::NoAnswer => {
            let line = format!("{to}: no answer in time: it may be done or not");
            Failure::with(Exit::UNKNOWN, line)
        }
        failure => no_answer(to, failure),
    })?;
    let body: Json = serde_json::from_slice(&response.body).unwrap_or_default();
    if response.status == StatusCode::PRECONDITION_FAILED {
        let tag = response.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let current = tag.map(|tag| tag.trim_matches('"').to_owned());
        return Ok(Outcome::unwritten(key, NOT_MET, current));
    }
    let Some(status) = body["status"].as_str() else {
        return Err(refusal(to, &response, &body));
    };
    Ok(Outcome {
        key,
        status: status.to_owned(),
        replicas: body["replicas"].as_u64().unwrap_or_default(),
        replicas_wanted: body["replicas_wanted"].as_u64().unwrap_or_default(),
        version: body["version"].as_str().map(str::to_owned),
        nodes: matches!(who, WhoHasIt::EachNode).then(|| body["nodes"].clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: &str, nodes: Option<Json>) -> Outcome {
        let (key, version) = (Bytes::new(), None);
        Outcome { key, status: status.to_owned(), replicas: 1, replicas_wanted: 2, version, nodes }
    }

    #[test]
    fn a_node_without_the_write_is_bad_news_where_every_node_was_waited_for() {
        let nodes = |has| Some(json!([{ "acknowledged": true }, { "acknowledged": has }]));
        assert_eq!(outcome("stored", None).exit(), Exit::DONE);
        assert_eq!(outcome("stored", nodes(true)).exit(), Exit::DONE);
        assert_eq!(outcome("stored", nodes(false)).exit(), Exit::BAD_NEWS);
        assert_eq!(outcome("stored", Some(Json::Null)).exit(), Exit::BAD_NEWS);
        assert_eq!(outcome("superseded", nodes(false)).exit(), Exit::NOTHING);
        assert_eq!(outcome("unknown", None).exit(), Exit::UNKNOWN);
    }
}
