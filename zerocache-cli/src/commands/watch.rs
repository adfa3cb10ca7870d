//! `watch`: the changes that one node learns of, as near caches follow them.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use zerocache_core::{
    access::Prefix,
    call::CallFailure,
    key::KeyHash,
    wire::{Envelope, KeyChange, RefusalCode, Request, RequestMessage, Response, cluster_id},
};
use zerocache_net::transport::{FramedTransport, Transport as _};

use super::{
    doctor::hello,
    entries::describe_key,
    keys::{KeyInfo, Page, Walk, readable},
    one_node::OneNode,
};
use crate::{
    args::WatchArgs,
    context::{Context, no_answer},
    exit::Exit,
    failure::Failure,
    print, say,
    survey::Questions,
    table, to_hex,
};

/// How long the node may take to say that nothing changed. It does after a second at most.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(4);

/// The most keys whose names are remembered.
const NAMES_MAX: usize = 200_000;

/// The most keys that are looked up of what comes in one response.
const LOOKUPS_MAX: usize = 64;

/// The keys that are asked for where a change is of an unknown one: the newest of its shard.
const NEWEST: usize = 64;

/// The bits of a short hash above which its shard stands.
const SHARD_SHIFT: u32 = 58;

/// A change, and what is known of it.
struct Change {
    hash: u64,
    stamp: u64,
    /// A purge: the hash is that of its target.
    is_purge: bool,
    key: Option<Bytes>,
    /// What is there now, if it was looked up.
    now: Option<Option<KeyInfo>>,
}

impl Change {
    fn new((hash, stamp): KeyChange, is_purge: bool) -> Self {
        Self { hash, stamp, is_purge, key: None, now: None }
    }

    fn what(&self) -> &'static str {
        match &self.now {
            _ if self.is_purge => "purge",
            None => "changed",
            Some(Some(_)) => "put",
            Some(None) => "removed",
        }
    }

    fn to_line(&self) -> String {
        let Self { hash, stamp, key, now, .. } = self;
        let size = now
            .iter()
            .flatten()
            .next()
            .map_or_else(|| "-".to_owned(), |info| table::bytes(info.value_bytes as f64));
        let key = key.as_ref().map_or_else(|| "-".to_owned(), |key| readable(key));
        format!("{hash:016x} {stamp:016x} {:<7} {size:>10} {key}\n", self.what())
    }

    fn to_json(&self) -> Json {
        let now = self.now.iter().flatten().next();
        let mut json = json!({
            "hash": format!("{:016x}", self.hash),
            "stamp": format!("{:016x}", self.stamp),
            "what": self.what(),
            "value_bytes": now.map(|info| info.value_bytes),
            "ttl_ms": now.map(|info| info.ttl_ms),
        });
        match &self.key {
            Some(key) => describe_key(&mut json, key),
            None => json["key"] = Json::Null,
        }
        json
    }
}

/// The names of keys, by their short hashes.
struct Names {
    /// None where keys may not be listed.
    known: Option<BTreeMap<u64, Bytes>>,
}

impl Names {
    /// Learns the names of keys that the node holds.
    async fn learn(context: &Context, node: &OneNode, args: &WatchArgs) -> Result<Self, Failure> {
        let mut names = Self { known: Some(BTreeMap::new()) };
        let mut walk = Walk::new(context, slice::from_ref(node), (args.prefix.as_ref(), None));
        loop {
            match walk.page().await {
                Ok(Some(page)) => page.keys.into_iter().for_each(|info| names.note(info.key)),
                Ok(None) => return Ok(names),
                Err(failure) if failure.exit() != Exit::DENIED || args.prefix.is_some() => {
                    return Err(failure);
                }
                Err(_) => {
                    say("hashes only: to list keys needs the role admin");
                    return Ok(Self { known: None });
                }
            }
            if names.known.as_ref().is_some_and(|known| known.len() >= NAMES_MAX) {
                return Ok(names);
            }
        }
    }

    fn note(&mut self, key: Bytes) {
        let Some(known) = &mut self.known else { return };
        if known.len() >= NAMES_MAX {
            known.pop_first();
        }
        known.insert(KeyHash::of(&key).short(), key);
    }

    fn get(&self, hash: u64) -> Option<&Bytes> {
        self.known.as_ref()?.get(&hash)
    }
}

/// The connection to the node that is followed.
struct Feed<'a> {
    context: &'a Context,
    node: &'a OneNode,
    transport: FramedTransport,
    since: u64,
}

impl<'a> Feed<'a> {
    fn new(context: &'a Context, node: &'a OneNode) -> Self {
        let cluster = context.cluster().to_owned();
        let make_hello = Arc::new(move || hello(&cluster));
        let runtime = tokio::runtime::Handle::current();
        let transport = FramedTransport::new(make_hello, context.global.timeout, runtime)
            .with_security(context.security.clone());
        Self { context, node, transport, since: 0 }
    }

    /// Returns the next changes, and whether some before them were lost; the first time there are none.
    async fn next(&mut self) -> Result<(bool, Vec<Change>), Failure> {
        let timeout_ms = u64::try_from(FOLLOW_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let cluster = cluster_id(self.context.cluster());
        let envelope = Envelope { cluster, timeout_ms, ..Envelope::default() };
        let message = RequestMessage {
            envelope,
            request: Request::Follow { since: self.since, with_purges: true },
        };
        match self.transport.call(self.node.address, message, FOLLOW_TIMEOUT).await {
            Ok(Response::Changes { next, lost, changes, purges }) => {
                self.since = next;
                let changes = changes.into_iter().map(|row| Change::new(row, false));
                let purges = purges.into_iter().map(|row| Change::new(row, true));
                Ok((lost, changes.chain(purges).collect()))
            }
            Ok(Response::Refused(refusal)) => {
                let exit = match refusal.code {
                    RefusalCode::Forbidden
                    | RefusalCode::Unauthenticated
                    | RefusalCode::BadCredentials
                    | RefusalCode::ExpiredCredentials
                    | RefusalCode::Protected => Exit::DENIED,
                    _ => Exit::UNREACHABLE,
                };
                Err(Failure::with(exit, format!("{}: {}", self.node.label, refusal.text)))
            }
            Ok(_) => Err(no_answer(self.node.address, CallFailure::NoAnswer)),
            Err(failure) => Err(no_answer(self.node.address, failure)),
        }
    }
}

/// Prints changes until it is ended.
pub(crate) fn watch(context: &Context, args: &WatchArgs) -> Result<Exit, Failure> {
    context.runtime.block_on(async {
        tokio::select! {
            result = follow(context, args) => result,
            _ = tokio::signal::ctrl_c() => Ok(Exit::DONE),
            () = pass(args.duration) => Ok(Exit::DONE),
        }
    })
}

/// Waits for so long; without a time, for ever.
async fn pass(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn follow(context: &Context, args: &WatchArgs) -> Result<Exit, Failure> {
    let node = OneNode::choose(context).await?;
    let mut feed = Feed::new(context, &node);
    // From here on nothing is missed.
    feed.next().await?;
    let mut names = Names::learn(context, &node, args).await?;
    if !context.global.quiet {
        say(&format!("following {}", node.label));
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    loop {
        let (lost, mut changes) = feed.next().await?;
        if lost {
            say("changes were lost: there were too many at a time, or the node was away");
        }
        describe(context, &node, &mut names, (&mut changes, args.prefix.as_ref())).await?;
        changes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= changes.len() as u64;
        let to_text = |change: &Change| match context.global.json {
            true => format!("{}\n", change.to_json()),
            false => change.to_line(),
        };
        print(&changes.iter().map(to_text).collect::<String>())?;
        if left == 0 {
            return Ok(Exit::DONE);
        }
    }
}

/// Names the keys of changes, drops those of other keys, and looks up what is there now.
async fn describe(
    context: &Context,
    node: &OneNode,
    names: &mut Names,
    (changes, prefix): (&mut Vec<Change>, Option<&Prefix>),
) -> Result<(), Failure> {
    if names.known.is_none() || changes.is_empty() {
        return Ok(());
    }
    // A key that is new is among the newest of its shard.
    let unknown =
        changes.iter().filter(|change| !change.is_purge && names.get(change.hash).is_none());
    let shards: BTreeSet<_> = unknown.map(|change| change.hash >> SHARD_SHIFT).collect();
    for shard in shards {
        let page = Page::ask(context, node, &format!("shard={shard}&limit={NEWEST}")).await?;
        page.keys.into_iter().for_each(|info| names.note(info.key));
    }
    for change in changes.iter_mut() {
        change.key = names.get(change.hash).cloned();
    }
    if let Some(prefix) = prefix {
        changes.retain(|change| change.key.as_ref().is_some_and(|key| prefix.covers(key)));
    }
    look_up(context, node, changes).await;
    Ok(())
}

/// Looks up what is there now of the changes whose keys are known, as far as they are not too many.
async fn look_up(context: &Context, node: &OneNode, changes: &mut [Change]) {
    let mut lookups = Questions::new();
    let named = changes.iter().enumerate();
    let named = named.filter_map(|(at, change)| Some((at, change.key.clone()?)));
    for (at, key) in named.take(LOOKUPS_MAX) {
        let target = format!("/v1/admin/keys?key_hex={}", to_hex(&key));
        let request = context.document(node.address, target);
        lookups.ask(async move { (at, request.await) });
    }
    while let Some((at, body)) = lookups.next().await {
        // Of a node that does not answer the next request says so.
        if let (Ok(body), Some(change)) = (body, changes.get_mut(at)) {
            change.now = Some(Page::new(&body).keys.pop());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_is_in_the_short_hash() {
        for n in 0..1_000_u32 {
            let hash = KeyHash::of(&n.to_le_bytes());
            assert_eq!((hash.short() >> SHARD_SHIFT) as usize, hash.shard());
        }
    }

    #[test]
    fn line_says_what_is_known() {
        let mut change = Change::new((0xab, 0x12), false);
        assert_eq!(change.to_line(), "00000000000000ab 0000000000000012 changed          - -\n");
        assert_eq!(
            (&change.to_json()["key"], &change.to_json()["what"]),
            (&Json::Null, &"changed".into())
        );
        change.key = Some(Bytes::from_static(b"k"));
        change.now = Some(None);
        assert!(change.to_line().ends_with(" removed          - k\n"));
        let purge = Change::new((0xab, 0x12), true);
        assert!(purge.to_line().ends_with(" purge            - -\n"), "{}", purge.to_line());
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names { known: Some(BTreeMap::new()) };
        for n in 0..=NAMES_MAX as u64 {
            names.note(n.to_le_bytes().to_vec().into());
        }
        let last = KeyHash::of(&(NAMES_MAX as u64).to_le_bytes()).short();
        assert!(names.get(last).is_some());
        assert_eq!(names.known.map(|known| known.len()), Some(NAMES_MAX));
    }
}
