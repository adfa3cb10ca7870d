//! `get`, `put` and `delete`: as a client does them, or at one node over HTTP.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value as Json, json};
use zerocache_client::{Ack, Error, Status, Written};
use zerocache_core::limits::VALUE_BYTES_WIRE_MAX;
use zerocache_net::{discovery::HostPort, transport::HttpResponse};

use super::keys::readable;
use crate::{
    args::{DeleteArgs, GetArgs, PutArgs},
    context::{Context, no_answer, refusal},
    exit::{Exit, print_document},
    failure::Failure,
    print_line,
    progress::Progress,
    say, to_hex,
};

/// A value that was found.
struct Found {
    value: Bytes,
    version: Option<String>,
    ttl_ms: Option<u64>,
    tags: Vec<String>,
}

/// The outcome of a write, as a node states it.
pub(super) struct Outcome {
    key: Bytes,
    status: String,
    replicas: u64,
    replicas_wanted: u64,
    version: Option<String>,
}

impl Outcome {
    pub(super) fn new(key: Bytes, written: &Written) -> Self {
        Self {
            key,
            status: written.status.as_str().to_owned(),
            replicas: written.replicas.into(),
            replicas_wanted: written.replicas_wanted.into(),
            version: written.version.map(|version| version.to_string()),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self.status.as_str() {
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
        // A purge has no key.
        if !self.key.is_empty() {
            describe_key(&mut json, &self.key);
        }
        json
    }
}

/// Prints a value.
pub(crate) fn get(context: &Context, args: &GetArgs) -> Result<Exit, Failure> {
    let key = args.format.parse(&args.key).map_err(Failure::usage)?;
    let mut report = None;
    let found = match &context.global.node {
        Some(node) => context.runtime.block_on(get_at(context, node, &key))?,
        None if args.explain => {
            let explained = context.client()?.get(&key).explain().wait();
            let explained = explained?;
            report = Some(explained.report.to_string());
            explained.result?.map(Found::from)
        }
        None => context.client()?.get(&key).entry().wait()?.map(Found::from),
    };
    if let Some(report) = &report {
        say(report);
    }
    if let (Some(found), Some(path)) = (&found, &args.out) {
        let failed = |error| Failure::new(format!("{}: {error}", path.display()));
        fs::write(path, &found.value).map_err(failed)?;
    }
    let exit = if found.is_some() { Exit::DONE } else { Exit::NOTHING };
    if context.global.json {
        let mut json = found.as_ref().map_or_else(
            || json!({}),
            |found| {
                let mut json = json!({
                    "bytes": found.value.len(),
                    "version": found.version,
                    "ttl_ms": found.ttl_ms,
                    "tags": found.tags,
                });
                if args.out.is_none() {
                    match std::str::from_utf8(&found.value) {
                        Ok(text) => json["value"] = text.into(),
                        Err(_) => json["value_hex"] = to_hex(&found.value).into(),
                    }
                }
                json
            },
        );
        json["found"] = found.is_some().into();
        json["report"] = report.into();
        describe_key(&mut json, &key);
        return print_document(json, exit);
    }
    match found {
        Some(_) if args.out.is_some() => {}
        Some(found) => {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(&found.value).and_then(|()| out.flush());
            written.map_err(|error| Failure::new(format!("standard output: {error}")))?;
        }
        None if context.global.quiet => {}
        None => say("there is no value for this key"),
    }
    Ok(exit)
}

/// Stores a value.
pub(crate) fn put(context: &Context, args: &PutArgs) -> Result<Exit, Failure> {
    let key = args.format.parse(&args.key).map_err(Failure::usage)?;
    let value = match args.value.as_deref() {
        None | Some("-") => read_input()?,
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
    };
    let outcome = match &context.global.node {
        Some(node) => {
            let mut query = format!("ttl={}&ack={}", args.ttl.as_secs(), ack(args.ack));
            let tags: Vec<_> = args.tags.iter().map(|tag| escaped(&escaped_tag(tag))).collect();
            if !tags.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(query, "&tags={}", tags.join(","));
            }
            let target = format!("/v1/entries/{}?{query}", escaped_bytes(&key));
            let request = (Method::PUT, target.as_str(), value);
            context.runtime.block_on(write_at(context, node, key, request))?
        }
        None => {
            let client = context.client()?;
            let write =
                client.put(&key, &value[..], args.ttl).ack(args.ack).tags(args.tags.clone());
            Outcome::new(key, &write.wait()?)
        }
    };
    let exit = outcome.exit();
    if context.global.json {
        return print_document(outcome.to_json(), exit);
    }
    print_line(&outcome.to_line())?;
    Ok(exit)
}

/// Deletes keys.
pub(crate) fn delete(context: &Context, args: &DeleteArgs) -> Result<Exit, Failure> {
    if args.keys.len() > 1 && !args.yes {
        let line = "more than one key is deleted with --yes only".to_owned();
        return Err(Failure::usage(line));
    }
    let keys: Result<Vec<_>, _> = args.keys.iter().map(|key| args.format.parse(key)).collect();
    let keys = keys.map_err(Failure::usage)?;
    let progress = Progress::new(context, "deleting", keys.len() as u64);
    let outcomes: Vec<Outcome> = match &context.global.node {
        Some(node) => {
            let mut outcomes = Vec::new();
            for key in keys {
                progress.advance(1);
                let target = format!("/v1/entries/{}?ack={}", escaped_bytes(&key), ack(args.ack));
                let request = (Method::DELETE, target.as_str(), Bytes::new());
                outcomes.push(context.runtime.block_on(write_at(context, node, key, request))?);
            }
            outcomes
        }
        None => {
            let client = context.client()?;
            let mut outcomes = Vec::new();
            for key in keys {
                progress.advance(1);
                let written = client.delete(&key).ack(args.ack).wait();
                outcomes.push(Outcome::new(key, &written?));
            }
            outcomes
        }
    };
    drop(progress);
    let exit = outcomes.iter().map(Outcome::exit).max().unwrap_or(Exit::DONE);
    if context.global.json {
        let keys: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
        return print_document(json!({ "keys": keys }), exit);
    }
    for outcome in &outcomes {
        // What is stored of a delete is the tombstone.
        let line = outcome.to_line().replacen("stored", "deleted", 1);
        print_line(&if outcomes.len() > 1 {
            format!("{line} {}", readable(&outcome.key))
        } else {
            line
        })?;
    }
    Ok(exit)
}

impl From<zerocache_client::Entry> for Found {
    fn from(entry: zerocache_client::Entry) -> Self {
        let tags = entry.metadata.tags().iter().map(ToString::to_string).collect();
        Self {
            version: Some(entry.version.to_string()),
            ttl_ms: u64::try_from(entry.ttl.as_millis()).ok(),
            tags,
            value: entry.value,
        }
    }
}

async fn get_at(context: &Context, node: &HostPort, key: &[u8]) -> Result<Option<Found>, Failure> {
    let to = context.resolve(node).await?;
    let target = format!("/v1/entries/{}", escaped_bytes(key));
    let response = context.request(to, (Method::GET, &target, Bytes::new())).await;
    let response = response.map_err(|failure| no_answer(to, failure))?;
    let body = || serde_json::from_slice::<Json>(&response.body).unwrap_or_default();
    match response.status {
        StatusCode::OK => {
            let text = |name: &str| {
                let value = response.headers.get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let tags = text("zerocache-tags").unwrap_or_default();
            let tags = tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned);
            Ok(Some(Found {
                tags: tags.collect(),
                version: text("zerocache-version"),
                ttl_ms: text("zerocache-ttl-ms").and_then(|ms| ms.parse().ok()),
                value: response.body,
            }))
        }
        StatusCode::NOT_FOUND if body()["code"] == "not_found" => Ok(None),
        _ => Err(refusal(to, &response, &body())),
    }
}

pub(super) async fn write_at(
    context: &Context,
    node: &HostPort,
    key: Bytes,
    request: (Method, &str, Bytes),
) -> Result<Outcome, Failure> {
    let to: SocketAddr = context.resolve(node).await?;
    let response: HttpResponse = match context.request(to, request).await {
        Ok(response) => response,
        Err(zerocache_core::call::CallFailure::NoAnswer) => {
            let line = format!("{to}: no answer in time: it may be done or not");
            return Err(Failure::with(Exit::UNKNOWN, line));
        }
        Err(failure) => return Err(no_answer(to, failure)),
    };
    let body: Json = serde_json::from_slice(&response.body).unwrap_or_default();
    let Some(status) = body["status"].as_str() else {
        return Err(refusal(to, &response, &body));
    };
    Ok(Outcome {
        key,
        status: status.to_owned(),
        replicas: body["replicas"].as_u64().unwrap_or_default(),
        replicas_wanted: body["replicas_wanted"].as_u64().unwrap_or_default(),
        version: body["version"].as_str().map(str::to_owned),
    })
}

fn read_input() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let mut input = std::io::stdin().lock().take(VALUE_BYTES_WIRE_MAX as u64 + 1);
    let read = input.read_to_end(&mut value);
    read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
    if value.len() > VALUE_BYTES_WIRE_MAX {
        return Err(Failure::from(Error::Refused(format!(
            "a value has at most {VALUE_BYTES_WIRE_MAX} bytes"
        ))));
    }
    Ok(value.into())
}

pub(super) fn ack(ack: Ack) -> &'static str {
    match ack {
        Ack::Region => "region",
        Ack::All => "all",
        // The parser makes no other.
        _ => "local",
    }
}

/// Adds a key to a document: as text, if it is text, and in hexadecimal digits.
pub(super) fn describe_key(json: &mut Json, key: &[u8]) {
    json["key"] = std::str::from_utf8(key).ok().into();
    json["key_hex"] = to_hex(key).into();
}

/// The tag as an element of a list with commas.
fn escaped_tag(tag: &str) -> String {
    tag.replace('%', "%25").replace(',', "%2C")
}

fn escaped(text: &str) -> String {
    escaped_bytes(text.as_bytes())
}

/// Bytes as they stand in a URL: everything but unreserved characters escaped.
pub(super) fn escaped_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
