//! `get`, `put` and `delete`: as a client does them, or at one node over HTTP.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH},
};
use serde_json::{Value as Json, json};
use zerocache_client::Error;
use zerocache_core::{condition::Condition, limits::VALUE_BYTES_WIRE_MAX, metadata::Freshness};
use zerocache_net::discovery::HostPort;

use super::{
    keys::{self, readable},
    one_node::OneNode,
    outcome::{Outcome, ack, write_at},
};
use crate::{
    args::{DeleteArgs, GetArgs, PutArgs, WhoHasIt},
    context::{Context, no_answer, refusal},
    exit::{Exit, print_document},
    failure::Failure,
    print_line,
    progress::Progress,
    say, to_hex,
};

/// The content type that nodes state for a value without one.
const UNTYPED: &str = "application/octet-stream";

/// The most keys that are deleted together.
const DELETED_AT_A_TIME: usize = 256;

/// A value that was found.
struct Found {
    value: Bytes,
    version: Option<String>,
    ttl_ms: Option<u64>,
    /// When a value that is not fresh may be served: `while` it is renewed, or `if-error`, as over HTTP.
    stale: Option<String>,
    tags: Vec<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    origins: Vec<String>,
}

/// Prints a value.
pub(crate) fn get(context: &Context, args: &GetArgs) -> Result<Exit, Failure> {
    let key = args.format.parse(&args.key).map_err(Failure::usage)?;
    let (found, report) = read(context, args, &key, args.stale)?;
    if let Some(report) = &report {
        say(report);
    }
    // Whoever is told that there is nothing wants to know what the next reader may still be served.
    let is_stale = found.is_none()
        && !args.stale
        && read(context, args, &key, true).is_ok_and(|(found, _)| found.is_some());
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
                    "stale": found.stale,
                    "tags": found.tags,
                    "content_type": found.content_type,
                    "content_encoding": found.content_encoding,
                    "origins": found.origins,
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
        if found.is_none() {
            json["is_stale"] = is_stale.into();
        }
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
        None if is_stale => say("the value for this key is stale; --stale prints it"),
        None => say("there is no value for this key"),
    }
    Ok(exit)
}

/// Reads a key, and reports how if that is wanted.
fn read(
    context: &Context,
    args: &GetArgs,
    key: &[u8],
    allow_stale: bool,
) -> Result<(Option<Found>, Option<String>), Failure> {
    if let Some(node) = &context.global.node {
        let found = context.runtime.block_on(get_at(context, node, key, allow_stale))?;
        return Ok((found, None));
    }
    let client = context.client()?;
    let get = client.get(key);
    let get = if allow_stale { get.allow_stale() } else { get };
    if !args.explain {
        return Ok((get.entry().wait()?.map(Found::from), None));
    }
    let explained = get.explain().wait()?;
    Ok((explained.result?.map(Found::from), Some(explained.report.to_string())))
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
            let who = WhoHasIt::Ack(args.ack);
            let mut query = format!("ttl={}&ack={}", args.ttl.as_secs(), ack(who));
            let tags: Vec<_> = args.tags.iter().map(|tag| escaped(&escaped_tag(tag))).collect();
            if !tags.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(query, "&tags={}", tags.join(","));
            }
            for url in &args.origin {
                let _ = write!(query, "&origin={}", escaped(url));
            }
            let target = format!("/v1/entries/{}?{query}", escaped_bytes(&key));
            let request = (Method::PUT, target.as_str(), value);
            let mut headers = description_headers(args)?;
            headers.extend(args.condition.condition().map(condition_header).transpose()?);
            context.runtime.block_on(async {
                let to = context.resolve(node).await?;
                write_at(context, to, key, (request, headers), who).await
            })?
        }
        None => {
            let client = context.client()?;
            let mut write =
                client.put(&key, &value[..], args.ttl).ack(args.ack).tags(args.tags.clone());
            if let Some(content_type) = &args.content_type {
                write = write.content_type(content_type);
            }
            if let Some(codings) = &args.content_encoding {
                write = write.content_encoding(codings);
            }
            write = args.origin.iter().fold(write, |write, url| write.origin(url));
            match args.condition.condition() {
                None => Outcome::new(key, &write.wait()?),
                Some(condition) => {
                    let write = match condition {
                        Condition::Absent => write.if_absent(),
                        Condition::Present => write.if_present(),
                        Condition::Version(version) => write.if_version(version),
                    };
                    Outcome::conditional(key, &write.wait()?)
                }
            }
        }
    };
    let exit = outcome.exit();
    if context.global.json {
        return print_document(outcome.to_json(), exit);
    }
    print_line(&outcome.to_line())?;
    Ok(exit)
}

/// Returns the headers that describe a value.
fn description_headers(args: &PutArgs) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, text) in
        [(CONTENT_TYPE, &args.content_type), (CONTENT_ENCODING, &args.content_encoding)]
    {
        if let Some(text) = text {
            let value = HeaderValue::from_str(text);
            headers
                .insert(name, value.map_err(|_| Failure::usage(format!("{text:?}: not ASCII")))?);
        }
    }
    Ok(headers)
}

/// Returns the header that states a condition.
fn condition_header(condition: Condition) -> Result<(HeaderName, HeaderValue), Failure> {
    let (name, value) = match condition {
        Condition::Absent => (IF_NONE_MATCH, "*".to_owned()),
        Condition::Present => (IF_MATCH, "*".to_owned()),
        Condition::Version(version) => (IF_MATCH, format!("\"{version}\"")),
    };
    let value = HeaderValue::try_from(value);
    Ok((name, value.map_err(|error| Failure::new(error.to_string()))?))
}

/// Deletes keys.
pub(crate) fn delete(context: &Context, args: &DeleteArgs) -> Result<Exit, Failure> {
    if args.keys.len() > 1 && !args.yes {
        let line = "more than one key is deleted with --yes only".to_owned();
        return Err(Failure::usage(line));
    }
    let keys = match &args.tag {
        Some(tag) => keys::with_tag(context, tag)?,
        None => {
            let keys = args.keys.iter().map(|key| args.format.parse(key));
            keys.collect::<Result<_, _>>().map_err(Failure::usage)?
        }
    };
    let mut outcomes = Vec::with_capacity(keys.len());
    let deleted = delete_each(context, args, keys, &mut outcomes);
    if args.tag.is_some() && !context.global.json {
        let count = outcomes.iter().filter(|outcome| outcome.exit() == Exit::DONE).count();
        print_line(&format!("deleted {count} of {} keys", outcomes.len()))?;
    }
    deleted?;
    let none = if args.tag.is_some() { Exit::NOTHING } else { Exit::DONE };
    let exit = outcomes.iter().map(Outcome::exit).max().unwrap_or(none);
    if context.global.json {
        let keys: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
        return print_document(json!({ "keys": keys }), exit);
    }
    if args.tag.is_some() {
        outcomes.retain(|outcome| outcome.exit() != Exit::DONE);
    }
    for outcome in &outcomes {
        // What is stored of a delete is the tombstone.
        let line = outcome.to_line().replacen("stored", "deleted", 1);
        print_line(&if outcomes.len() > 1 {
            format!("{line} {}", readable(&outcome.key))
        } else {
            line
        })?;
        outcome.say_lacking();
    }
    Ok(exit)
}

/// Deletes keys, and adds the outcomes up to the first failure.
fn delete_each(
    context: &Context,
    args: &DeleteArgs,
    keys: Vec<Bytes>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    let (who, condition) = (args.ack, args.if_version.map(Condition::Version));
    let progress = Progress::new(context, "deleting", keys.len() as u64);
    let acks = match who {
        WhoHasIt::Ack(acks) if context.global.node.is_none() => acks,
        _ => {
            let to = context.runtime.block_on(OneNode::address(context))?;
            for key in keys {
                let target = format!("/v1/entries/{}?ack={}", escaped_bytes(&key), ack(who));
                let request = (Method::DELETE, target.as_str(), Bytes::new());
                let condition = condition.map(condition_header).transpose()?;
                let request = (request, condition.into_iter().collect());
                let deleted = write_at(context, to, key, request, who);
                outcomes.push(context.runtime.block_on(deleted)?);
                progress.advance(1);
            }
            return Ok(());
        }
    };
    let client = context.client()?;
    if let (Some(version), [key]) = (args.if_version, &keys[..]) {
        let deleted = client.delete(key).ack(acks).if_version(version).wait()?;
        outcomes.push(Outcome::conditional(key.clone(), &deleted));
        return Ok(());
    }
    for keys in keys.chunks(DELETED_AT_A_TIME) {
        let written = client.delete_many(keys).ack(acks).each().wait()?;
        for (key, written) in keys.iter().zip(written) {
            outcomes.push(Outcome::new(key.clone(), &written?));
            progress.advance(1);
        }
    }
    Ok(())
}

impl From<zerocache_client::Entry> for Found {
    fn from(entry: zerocache_client::Entry) -> Self {
        let metadata = &entry.metadata;
        let tags = metadata.tags().iter().map(ToString::to_string).collect();
        let stale = match entry.freshness {
            Freshness::Fresh => None,
            Freshness::Stale => Some("while"),
            _ => Some("if-error"),
        };
        Self {
            stale: stale.map(str::to_owned),
            content_type: metadata.content_type().map(str::to_owned),
            content_encoding: metadata.content_encoding().map(str::to_owned),
            origins: metadata.origins().to_vec(),
            version: Some(entry.version.to_string()),
            ttl_ms: u64::try_from(entry.ttl.as_millis()).ok(),
            tags,
            value: entry.value,
        }
    }
}

async fn get_at(
    context: &Context,
    node: &HostPort,
    key: &[u8],
    allow_stale: bool,
) -> Result<Option<Found>, Failure> {
    let to = context.resolve(node).await?;
    let target = format!("/v1/entries/{}?stale={allow_stale}", escaped_bytes(key));
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
            let origins = response.headers.get_all("zerocache-origin").iter();
            let origins = origins.filter_map(|url| Some(url.to_str().ok()?.to_owned()));
            Ok(Some(Found {
                tags: tags.collect(),
                content_type: text("content-type").filter(|given| given != UNTYPED),
                content_encoding: text("content-encoding"),
                origins: origins.collect(),
                version: text("zerocache-version"),
                ttl_ms: text("zerocache-ttl-ms").and_then(|ms| ms.parse().ok()),
                stale: text("zerocache-stale"),
                value: response.body,
            }))
        }
        StatusCode::NOT_FOUND if body()["code"] == "not_found" => Ok(None),
        _ => Err(refusal(to, &response, &body())),
    }
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
