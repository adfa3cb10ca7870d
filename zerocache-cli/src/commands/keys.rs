//! `keys`: the keys that one node holds, or all nodes, page by page.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    fmt::Write as _,
    slice,
};

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value as Json, json};
use zerocache_core::access::Prefix;

use super::{
    entries::{describe_key, escaped_bytes},
    hot_keys,
    one_node::OneNode,
};
use crate::{
    args::KeysArgs,
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    from_hex, print,
    progress::Progress,
    say, table,
};

/// What a node says of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyInfo {
    pub(crate) value_bytes: u64,
    pub(crate) key: Bytes,
    pub(crate) ttl_ms: u64,
    version: String,
    /// What it takes of the budget of the node.
    bytes: u64,
}

impl KeyInfo {
    fn new(json: &Json) -> Option<Self> {
        let number = |name: &str| json[name].as_u64();
        Some(Self {
            value_bytes: number("value_bytes")?,
            key: from_hex(json["key_hex"].as_str()?)?.into(),
            ttl_ms: number("ttl_ms")?,
            version: json["version"].as_str()?.to_owned(),
            bytes: number("bytes")?,
        })
    }

    fn to_json(&self) -> Json {
        let mut json = json!({
            "value_bytes": self.value_bytes,
            "bytes": self.bytes,
            "ttl_ms": self.ttl_ms,
            "version": self.version,
        });
        describe_key(&mut json, &self.key);
        json
    }
}

/// A walk over the keys of some nodes, one node after the other.
pub(crate) struct Walk<'a> {
    context: &'a Context,
    /// The nodes that are left, the one that is walked first.
    nodes: &'a [OneNode],
    /// The parameters of every page.
    filter: String,
    next: Option<String>,
    /// The keys of all pages so far, if there is more than one node.
    seen: Option<HashSet<Bytes>>,
}

/// One page of a walk.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) keys: Vec<KeyInfo>,
    /// The entries that the node inspected for it.
    inspected: u64,
    /// The entries that the node holds.
    entries: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        context: &'a Context,
        nodes: &'a [OneNode],
        (prefix, tag): (Option<&Prefix>, Option<&str>),
    ) -> Self {
        let mut filter = String::new();
        for (name, value) in
            [("prefix", prefix.map(Prefix::to_string)), ("tag", tag.map(str::to_owned))]
        {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(filter, "{name}={}&", escaped_bytes(value.as_bytes()));
            }
        }
        let seen = (nodes.len() > 1).then(HashSet::new);
        Self { context, nodes, filter, next: None, seen }
    }

    /// Returns the next page; none after the last one.
    pub(crate) async fn page(&mut self) -> Result<Option<Page>, Failure> {
        let Some((node, others)) = self.nodes.split_first() else { return Ok(None) };
        let mut target = format!("/v1/admin/keys?{}", self.filter);
        if let Some(next) = &self.next {
            // Writing to a string does not fail.
            let _ = write!(target, "after={next}");
        }
        let body = node.ask(self.context, (Method::GET, &target)).await?;
        self.next = body["next"].as_str().map(str::to_owned);
        if self.next.is_none() {
            self.nodes = others;
        }
        let mut page = Page::new(&body);
        if let Some(seen) = &mut self.seen {
            page.keys.retain(|info| seen.insert(info.key.clone()));
        }
        Ok(Some(page))
    }
}

impl Page {
    pub(crate) fn new(body: &Json) -> Self {
        let keys = body["keys"].as_array().into_iter().flatten();
        Self {
            keys: keys.filter_map(KeyInfo::new).collect(),
            inspected: body["inspected"].as_u64().unwrap_or_default(),
            entries: body["entries"].as_u64().unwrap_or_default(),
        }
    }

    /// Asks a node for some keys: the newest of a shard, or a single one.
    pub(crate) async fn ask(
        context: &Context,
        node: &OneNode,
        query: &str,
    ) -> Result<Self, Failure> {
        let target = format!("/v1/admin/keys?{query}");
        Ok(Self::new(&node.ask(context, (Method::GET, &target)).await?))
    }
}

/// Prints the keys.
pub(crate) fn keys(context: &Context, args: &KeysArgs) -> Result<Exit, Failure> {
    if let Some(count) = args.hot {
        return hot_keys::print_hottest(context, count as usize);
    }
    context.runtime.block_on(async {
        let nodes = match args.all_nodes {
            true => OneNode::each(context).await?,
            false => vec![OneNode::choose(context).await?],
        };
        if !context.global.quiet && !context.global.json {
            let labels: Vec<_> = nodes.iter().map(|node| node.label.as_str()).collect();
            say(&format!("keys of {}", labels.join(", ")));
        }
        let mut walk = Walk::new(context, &nodes, (args.prefix.as_ref(), args.tag.as_deref()));
        match args.big {
            Some(count) => largest(context, &mut walk, count as usize).await,
            None => all(context, &mut walk, args.long).await,
        }
    })
}

/// Returns the keys of all entries with a tag, of the node that was named or else of all nodes.
pub(super) fn with_tag(context: &Context, tag: &str) -> Result<Vec<Bytes>, Failure> {
    context.runtime.block_on(async {
        let nodes = OneNode::each(context).await?;
        let _progress = Progress::endless(context, "listing the keys");
        let mut keys = HashSet::new();
        for node in &nodes {
            let mut walk = Walk::new(context, slice::from_ref(node), (None, Some(tag)));
            while let Some(page) = walk.page().await? {
                keys.extend(page.keys.into_iter().map(|info| info.key));
            }
        }
        Ok(keys.into_iter().collect())
    })
}

/// Prints each page as it comes.
async fn all(context: &Context, walk: &mut Walk<'_>, is_long: bool) -> Result<Exit, Failure> {
    let is_json = context.global.json;
    let mut page = walk.page().await?;
    // One document, however many keys there are.
    let mut text = if is_json { "{\"keys\":[".to_owned() } else { String::new() };
    let mut separator = "";
    let mut failure = None;
    while let Some(current) = page {
        for info in &current.keys {
            if is_json {
                text += separator;
                text += &info.to_json().to_string();
                separator = ",\n";
            } else {
                text += &line(info, is_long);
            }
        }
        print(&text)?;
        text.clear();
        page = match walk.page().await {
            Ok(page) => page,
            Err(error) => {
                failure = Some(error);
                None
            }
        };
    }
    match failure {
        None if !is_json => Ok(Exit::DONE),
        None => print(&format!("],\"exit\":{}}}\n", Exit::DONE.0)).map(|()| Exit::DONE),
        Some(failure) if !is_json => Err(failure),
        Some(failure) => {
            let (error, exit) = (Json::from(failure.line()), failure.exit());
            say(&format!("error: {}", failure.line()));
            print(&format!("],\"error\":{error},\"exit\":{}}}\n", exit.0)).map(|()| exit)
        }
    }
}

/// Prints the keys with the largest values.
async fn largest(context: &Context, walk: &mut Walk<'_>, count: usize) -> Result<Exit, Failure> {
    let mut largest = BinaryHeap::new();
    let (mut progress, nodes) = (None, walk.nodes.len() as u64);
    while let Some(page) = walk.page().await? {
        let bar = progress.get_or_insert_with(|| {
            Progress::new(context, "walking the keys", page.entries * nodes)
        });
        bar.advance(page.inspected);
        for info in page.keys {
            let is_full = largest.len() >= count;
            let is_small = largest.peek().is_some_and(|Reverse(least)| info <= *least);
            // A key may come twice.
            let is_there = |other: &Reverse<KeyInfo>| other.0.key == info.key;
            if (is_full && is_small) || largest.iter().any(is_there) {
                continue;
            }
            if is_full {
                largest.pop();
            }
            largest.push(Reverse(info));
        }
    }
    drop(progress);
    let largest = largest.into_sorted_vec().into_iter().map(|Reverse(info)| info);
    if context.global.json {
        let keys: Vec<_> = largest.map(|info| info.to_json()).collect();
        return print_document(json!({ "keys": keys }), Exit::DONE);
    }
    print(&largest.map(|info| line(&info, true)).collect::<String>())?;
    Ok(Exit::DONE)
}

fn line(info: &KeyInfo, is_long: bool) -> String {
    let key = readable(&info.key);
    if !is_long {
        return format!("{key}\n");
    }
    let (size, life) = (table::bytes(info.value_bytes as f64), table::span(info.ttl_ms));
    format!("{size:>10}  {life:>8}  {key}\n")
}

/// A key as text, with escapes for what is none.
pub(crate) fn readable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.chars().flat_map(escaped).collect(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

/// A character that would break the line or cannot be seen is escaped.
fn escaped(char: char) -> Vec<char> {
    match char {
        '\\' => vec!['\\', '\\'],
        _ if char.is_control() => char.escape_default().collect(),
        _ => vec![char],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_line_each() {
        assert_eq!(readable(b"orders/7"), "orders/7");
        assert_eq!(readable("z\u{fc}rich\n\x1b[2J\\".as_bytes()), "zürich\\n\\u{1b}[2J\\\\");
        assert_eq!(readable(b"\x01\xff'"), "\\x01\\xff\\'");
    }

    #[test]
    fn line_has_the_size_and_the_remaining_life() {
        let json = json!({
            "key_hex": "6b", "value_bytes": 1_536, "bytes": 1_600, "ttl_ms": 90_000, "version": "1.2",
        });
        let info = KeyInfo::new(&json).expect("whole");
        assert_eq!(line(&info, true), "   1.5 KiB      90 s  k\n");
        assert_eq!(line(&info, false), "k\n");
        assert_eq!(info.to_json()["key_hex"], "6b");
        assert_eq!(KeyInfo::new(&json!({ "key_hex": "6" })), None);
    }
}
