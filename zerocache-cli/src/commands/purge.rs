//! `purge`: ends all entries with a tag, of a namespace, or all.

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Value as Json, json};
use zerocache_client::memo::Purge;

use super::{
    entries::escaped_bytes,
    keys::readable,
    one_node::OneNode,
    outcome::{Outcome, ack, write_at},
};
use crate::{
    args::{PurgeArgs, WhoHasIt},
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print_line,
};

/// What one purge ends.
enum What {
    Tag(String),
    Namespace(String),
    Everything,
}

impl What {
    fn in_words(&self) -> String {
        match self {
            Self::Tag(tag) => readable(tag.as_bytes()),
            Self::Namespace(name) => format!("namespace {name:?}"),
            Self::Everything => "everything".to_owned(),
        }
    }

    /// Adds what is purged to a document.
    fn describe(&self, json: &mut Json) {
        match self {
            Self::Tag(tag) => json["tag"] = tag.as_str().into(),
            Self::Namespace(name) => json["namespace"] = name.as_str().into(),
            Self::Everything => json["everything"] = true.into(),
        }
    }

    /// The path of the purge over HTTP, up to its parameters.
    fn path(&self) -> String {
        match self {
            Self::Tag(tag) => format!("/v1/tags/{}/purge?", escaped_bytes(tag.as_bytes())),
            Self::Namespace(name) => format!("/v1/purge?namespace={name}&"),
            Self::Everything => "/v1/purge?everything=yes&".to_owned(),
        }
    }
}

/// Ends entries.
pub(crate) fn purge(context: &Context, args: &PurgeArgs) -> Result<Exit, Failure> {
    if (args.everything || args.tags.len() > 1) && !args.yes {
        let line = "everything, or more than one tag, is purged with --yes only".to_owned();
        return Err(Failure::usage(line));
    }
    let all = match &args.namespace {
        _ if args.everything => vec![What::Everything],
        Some(name) => vec![What::Namespace(name.clone())],
        None => args.tags.iter().cloned().map(What::Tag).collect(),
    };
    let mut outcomes = Vec::with_capacity(all.len());
    for what in &all {
        outcomes.push(purge_one(context, args, what)?);
    }
    let exit = outcomes.iter().map(Outcome::exit).max().unwrap_or(Exit::DONE);
    if context.global.json {
        let purges = all.iter().zip(&outcomes).map(|(what, outcome)| {
            let mut json = outcome.to_json();
            what.describe(&mut json);
            json
        });
        return print_document(json!({ "purges": purges.collect::<Vec<_>>() }), exit);
    }
    for (what, outcome) in all.iter().zip(&outcomes) {
        let line = outcome.to_line().replacen("stored", "purged", 1);
        print_line(&format!("{line} {}", what.in_words()))?;
        outcome.say_lacking();
    }
    Ok(exit)
}

fn purge_one(context: &Context, args: &PurgeArgs, what: &What) -> Result<Outcome, Failure> {
    let acks = match args.ack {
        WhoHasIt::Ack(acks) if context.global.node.is_none() => acks,
        who => return purge_at_one(context, args, what, who),
    };
    let client = context.client()?;
    let mut purge: Purge = match what {
        What::Tag(tag) => client.invalidate_tag(tag),
        What::Namespace(name) => client.invalidate_namespace(name),
        What::Everything => client.invalidate_everything(),
    };
    purge = purge.ack(acks).hold(args.hold);
    if args.soft {
        purge = purge.soft();
    }
    if let Some(version) = args.replay {
        purge = purge.replay(version);
    }
    Ok(Outcome::new(Bytes::new(), &purge.wait()?))
}

/// Purges at the node that was named, or at one in sync.
fn purge_at_one(
    context: &Context,
    args: &PurgeArgs,
    what: &What,
    who: WhoHasIt,
) -> Result<Outcome, Failure> {
    context.runtime.block_on(async {
        let to = OneNode::address(context).await?;
        let (path, ack, hold) = (what.path(), ack(who), args.hold.as_secs());
        let mut target = format!("{path}ack={ack}&soft={}&hold={hold}", args.soft);
        if let Some(version) = args.replay {
            target += &format!("&version={version}");
        }
        let request = ((Method::POST, target.as_str(), Bytes::new()), HeaderMap::new());
        write_at(context, to, Bytes::new(), request, who).await
    })
}
