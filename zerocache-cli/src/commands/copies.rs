//! `where`, `verify` and `repair`: on which nodes the copies of keys are, and whether they agree.

use std::{cmp::Reverse, time::Duration};

use anstyle::Style;
use bytes::Bytes;
use hyper::{HeaderMap, Method, header::CONTENT_LENGTH};
use serde_json::{Value as Json, json};
use zerocache_net::transport::http_request;

use super::{
    entries::escaped_bytes,
    keys::{self, readable},
    one_node::OneNode,
    origins,
};
use crate::{
    args::{KeyFormat, RepairArgs, VerifyArgs, WhereArgs},
    context::{Context, no_answer, parse_json},
    exit::{Exit, print_document},
    failure::Failure,
    from_hex,
    progress::Progress,
    random, say, style, table, to_hex,
};

/// A node waits for others while it repairs.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(10);

const HEADING: [&str; 10] =
    ["REGION", "ADDRESS", "ID", "ROLE", "STATE", "VERDICT", "VERSION", "LIFE", "BYTES", "LATENCY"];

/// The number of the column with the verdicts.
const VERDICT: usize = 5;

/// Prints where the copies of keys are.
pub(crate) fn locate(context: &Context, args: &WhereArgs) -> Result<Exit, Failure> {
    let path = |key: &str| format!("/v1/locate?key_hex={key}&digest={}", args.digest);
    let documents = ask_all(context, parsed(&args.keys, args.format)?, (&Method::GET, &path))?;
    let exit = |document: &Json| match (document["agrees"] == true, document["found"] == true) {
        (false, _) => Exit::BAD_NEWS,
        (true, false) => Exit::NOTHING,
        (true, true) => Exit::DONE,
    };
    report(context, &documents, worst(&documents, exit))
}

/// Compares the copies of keys.
pub(crate) fn verify(context: &Context, args: &VerifyArgs) -> Result<Exit, Failure> {
    let Some(tag) = &args.tag else {
        let mut documents = verified(context, parsed(&args.keys, args.format)?)?;
        if args.origins {
            ask_origins(context, &mut documents)?;
        }
        return report(context, &documents, worst(&documents, judged));
    };
    let mut keys = keys::with_tag(context, tag)?;
    if let Some(count) = args.sample {
        keys = sample(keys, count as usize, u64::from_le_bytes(random()?));
    }
    let mut documents = verified(context, keys)?;
    if args.origins {
        ask_origins(context, &mut documents)?;
    }
    let exit = if documents.is_empty() { Exit::NOTHING } else { worst(&documents, judged) };
    let all = documents.len();
    if !context.global.json {
        documents.retain(|document| judged(document) != Exit::DONE);
    }
    report(context, &documents, exit)?;
    if !context.global.json && !context.global.quiet {
        say(&format!("{} of {all} keys are all right", all - documents.len()));
    }
    Ok(exit)
}

/// Returns `count` of the keys, evenly spaced from a place by chance on.
fn sample(keys: Vec<Bytes>, count: usize, random: u64) -> Vec<Bytes> {
    let all = keys.len();
    if count >= all {
        return keys;
    }
    let first = usize::try_from(random % all as u64).unwrap_or_default();
    (0..count).map(|n| keys[(first + n * all / count) % all].clone()).collect()
}

/// Makes the copies of keys agree.
pub(crate) fn repair(context: &Context, args: &RepairArgs) -> Result<Exit, Failure> {
    if args.dry_run {
        let mut documents = verified(context, parsed(&args.keys, args.format)?)?;
        for document in &mut documents {
            let steps: Vec<_> = nodes(document).filter_map(planned).collect();
            document["planned"] = steps.into();
        }
        let exit = worst(&documents, judged);
        report(context, &documents, exit)?;
        if !context.global.json {
            let planned = documents.iter().flat_map(|one| one["planned"].as_array()).flatten();
            planned.for_each(|step| {
                say(&format!("{}: {}", text(step, "address"), text(step, "step")))
            });
        }
        return Ok(exit);
    }
    let from = args.from.as_ref().map(|node| format!("&from={}", escaped_bytes(node.as_bytes())));
    let from = from.unwrap_or_default();
    let path = |key: &str| format!("/v1/repair?key_hex={key}{from}");
    let documents = ask_all(context, parsed(&args.keys, args.format)?, (&Method::POST, &path))?;
    let exit = worst(&documents, judged);
    report(context, &documents, exit)?;
    if !context.global.json && !context.global.quiet {
        documents.iter().for_each(say_repaired);
    }
    Ok(exit)
}

fn verified(context: &Context, keys: Vec<Bytes>) -> Result<Vec<Json>, Failure> {
    let path = |key: &str| format!("/v1/verify?key_hex={key}");
    ask_all(context, keys, (&Method::POST, &path))
}

fn parsed(keys: &[String], format: KeyFormat) -> Result<Vec<Bytes>, Failure> {
    let keys: Result<Vec<Bytes>, _> = keys.iter().map(|key| format.parse(key)).collect();
    keys.map_err(Failure::usage)
}

/// Asks the origins of each value, and adds what they say to its document.
fn ask_origins(context: &Context, documents: &mut [Json]) -> Result<(), Failure> {
    let progress = Progress::new(context, "asking origins", documents.len() as u64);
    context.runtime.block_on(async {
        let to = OneNode::address(context).await?;
        for document in documents {
            let urls: Vec<_> = strings(&document["origins"]).map(str::to_owned).collect();
            if !urls.is_empty() {
                let key = document["key_hex"].as_str().and_then(from_hex).unwrap_or_default();
                let target = format!("/v1/entries/{}?stale=true", escaped_bytes(&key));
                let value = context.request(to, (Method::HEAD, &target, Bytes::new())).await;
                let value = value.map_err(|failure| no_answer(to, failure))?;
                let length = value.headers.get(CONTENT_LENGTH);
                let length = length.and_then(|text| text.to_str().ok()?.parse().ok());
                let length = length.filter(|_| value.status.is_success());
                let places = urls.into_iter().map(|url| (url, length)).collect();
                document["origins_asked"] =
                    origins::verify(places, context.global.timeout).await.into();
            }
            progress.advance(1);
        }
        Ok(())
    })
}

fn strings(json: &Json) -> impl Iterator<Item = &str> {
    json.as_array().into_iter().flatten().filter_map(Json::as_str)
}

/// What the origins of a value said, if they were asked.
fn asked_origins(document: &Json) -> impl Iterator<Item = &Json> {
    document["origins_asked"].as_array().into_iter().flatten()
}

/// Asks a node about each key.
fn ask_all(
    context: &Context,
    keys: Vec<Bytes>,
    (method, path): (&Method, &dyn Fn(&str) -> String),
) -> Result<Vec<Json>, Failure> {
    let progress = Progress::new(context, "asking", keys.len() as u64);
    context.runtime.block_on(async {
        let to = OneNode::choose(context).await?.address;
        let timeout = match *method {
            Method::POST => REPAIR_TIMEOUT.max(context.global.timeout),
            _ => context.global.timeout,
        };
        let mut documents = Vec::with_capacity(keys.len());
        for key in keys {
            let target = path(&to_hex(&key));
            let request = (method.clone(), target.as_str(), Bytes::new());
            let headers = HeaderMap::new();
            let response = http_request(to, request, headers, timeout, &context.security).await;
            let response = response.map_err(|failure| no_answer(to, failure))?;
            documents.push(parse_json(to, &response)?);
            progress.advance(1);
        }
        Ok(documents)
    })
}

fn nodes(document: &Json) -> impl Iterator<Item = &Json> {
    document["nodes"].as_array().into_iter().flatten()
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or("-")
}

/// The nodes that could not say what they hold.
fn silent(document: &Json) -> usize {
    let is_silent = |node: &&Json| matches!(text(node, "verdict"), "unreachable" | "unsupported");
    nodes(document).filter(is_silent).count()
}

fn judged(document: &Json) -> Exit {
    match (document["agrees"] == true, silent(document)) {
        (false, _) => Exit::BAD_NEWS,
        // Also that no node has a value: with a tag, entries expire while they are verified.
        (true, 0) if asked_origins(document).all(origins::is_good) => Exit::DONE,
        (true, _) => Exit::WARNINGS,
    }
}

/// The exit of several keys: bad news before warnings, and these before everything else.
fn worst(documents: &[Json], exit: impl Fn(&Json) -> Exit) -> Exit {
    let rank = |exit: &Exit| match *exit {
        Exit::BAD_NEWS => (true, Reverse(0)),
        exit => (false, Reverse(u8::MAX - exit.0)),
    };
    documents.iter().map(exit).max_by_key(rank).unwrap_or(Exit::DONE)
}

/// What a repair would do about a node.
fn planned(node: &Json) -> Option<Json> {
    let step = match text(node, "verdict") {
        "behind" | "missing" => "gets the newest version",
        "damaged" => "gets the content of most nodes, or of --from, with a new version",
        _ => return None,
    };
    Some(json!({ "id": node["id"], "address": node["address"], "step": step }))
}

fn report(context: &Context, documents: &[Json], exit: Exit) -> Result<Exit, Failure> {
    if context.global.json {
        return print_document(json!({ "keys": documents }), exit);
    }
    let mut out = String::new();
    for document in documents {
        if documents.len() > 1 {
            out += &format!("{}\n", name(document));
        }
        let rows: Vec<_> = nodes(document).map(row).collect();
        out += &table::styled_lines(&HEADING, &rows, cell_style);
    }
    style::print(&out)?;
    if !context.global.quiet {
        for document in documents {
            say(&summary(document));
            asked_origins(document).for_each(say_origin);
        }
    }
    Ok(exit)
}

fn say_origin(place: &Json) {
    let (url, verdict) = (text(place, "url"), text(place, "verdict"));
    let words = match verdict {
        "same" => "there, of the same length".to_owned(),
        "other" => format!("there, with {} bytes: another length", place["bytes"]),
        "there" => "there; it states no length".to_owned(),
        "gone" => "gone".to_owned(),
        "refused" => format!("it answers with the status {}", place["status"]),
        _ => format!("no answer: {}", text(place, "reason")),
    };
    say(&format!("  origin {url}: {words}"));
}

fn row(node: &Json) -> Vec<String> {
    let number = |name: &str| node[name].as_u64();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = match text(node, "state") {
        _ if node["purged"] == true => "purged",
        "value" if node["fresh_ms"] == 0 => "stale",
        state => state,
    };
    vec![
        text(node, "region").to_owned(),
        text(node, "address").to_owned(),
        text(node, "id").to_owned(),
        text(node, "role").to_owned(),
        state.to_owned(),
        text(node, "verdict").to_owned(),
        text(node, "version").to_owned(),
        or_dash(number("ttl_ms").map(table::span)),
        or_dash(number("bytes").map(|bytes| table::bytes(bytes as f64))),
        or_dash(node["latency_ms"].as_f64().map(|ms| table::micros((ms * 1_000.0) as u64))),
    ]
}

fn cell_style(column: usize, cell: &str) -> Style {
    match (column, cell) {
        (VERDICT, "same" | "witness") => style::GOOD,
        (VERDICT, "behind" | "missing" | "damaged") => style::BAD,
        (VERDICT, _) => style::ODD,
        _ => Style::new(),
    }
}

fn name(document: &Json) -> String {
    let key = document["key_hex"].as_str().and_then(from_hex).unwrap_or_default();
    readable(&key)
}

/// One line on the copies of a key.
fn summary(document: &Json) -> String {
    let count = |verdicts: &[&str]| {
        nodes(document).filter(|node| verdicts.contains(&text(node, "verdict"))).count()
    };
    let (all, witnesses) = (nodes(document).count(), count(&["witness"]));
    let answered = all - silent(document) - witnesses;
    let differing = count(&["behind", "missing", "damaged"]);
    let mut line = format!("{}: ", name(document));
    line += &match (differing, document["found"] == true) {
        (0, true) if has_stale(document) => {
            format!("the copies on {answered} nodes agree; the value is stale")
        }
        (0, true) => format!("the copies on {answered} nodes agree"),
        (0, false) => format!("no value on any of {answered} nodes"),
        (_, _) => format!("{differing} of {answered} nodes differ"),
    };
    for (verdicts, words) in [
        (&["evicted"][..], "evicted or expired on"),
        (&["witness"], "the version alone, as it is to be, on"),
        (&["unreachable"], "no answer from"),
        (&["unsupported"], "of an earlier release:"),
    ] {
        match count(verdicts) {
            0 => {}
            number => line += &format!("; {words} {number}"),
        }
    }
    line
}

/// Returns true if the value may be served only while it is renewed, or if that fails.
fn has_stale(document: &Json) -> bool {
    nodes(document).any(|node| node["fresh_ms"] == 0)
}

fn say_repaired(document: &Json) {
    for node in document["repaired"].as_array().into_iter().flatten() {
        let [before, after] = ["before", "after"].map(|when| text(node, when));
        say(&format!("{} was {before} and is {after}", text(node, "address")));
    }
    if let Some(version) = document["rewritten"].as_str() {
        say(&format!("the value was written again, with the version {version}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(verdicts: &[&str], agrees: bool) -> Json {
        let nodes: Vec<_> = verdicts.iter().map(|verdict| json!({ "verdict": verdict })).collect();
        json!({ "key_hex": "6b", "found": true, "agrees": agrees, "nodes": nodes })
    }

    #[test]
    fn sample_has_different_keys() {
        let keys: Vec<_> = (0..10_u8).map(|n| Bytes::from(vec![n])).collect();
        for random in 0..20 {
            let mut some = sample(keys.clone(), 7, random);
            some.sort_unstable();
            some.dedup();
            assert_eq!(some.len(), 7, "{random}");
        }
        assert_eq!(sample(keys.clone(), 10, 3), keys);
        assert_eq!(sample(Vec::new(), 3, 3), Vec::<Bytes>::new());
    }

    #[test]
    fn exit_is_that_of_the_worst_key() {
        let good = document(&["same", "evicted"], true);
        let silent = document(&["same", "unreachable"], true);
        let bad = document(&["same", "behind", "unreachable"], false);
        assert_eq!(worst(std::slice::from_ref(&good), judged), Exit::DONE);
        assert_eq!(worst(&[good.clone(), silent.clone()], judged), Exit::WARNINGS);
        assert_eq!(worst(&[bad.clone(), silent.clone(), good.clone()], judged), Exit::BAD_NEWS);
        assert_eq!(summary(&good), "k: the copies on 2 nodes agree; evicted or expired on 1");
        assert_eq!(summary(&bad), "k: 1 of 2 nodes differ; no answer from 1");
        let steps: Vec<_> = nodes(&bad).filter_map(planned).collect();
        assert_eq!(steps.len(), 1);
    }
}
