//! `drain` and `undrain`: take a node out of service, and put it back.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value as Json, json};
use zerocache_net::clock;

use super::one_node::OneNode;
use crate::{
    args::{Global, ServiceArgs},
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print_line,
    progress::Progress,
    say,
    survey::{self, NodeView, Survey},
};

/// How long it is until the nodes are asked once more.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Takes a node out of service.
pub(crate) fn drain(context: &Context, args: &ServiceArgs) -> Result<Exit, Failure> {
    let (node, body) = set_service(context, args, "/v1/admin/drain")?;
    let left = wait(context, args, &node, "waiting for the other nodes", lacks_of_drain)?;
    report(context, &node, &body, left)
}

/// Puts a node into service again.
pub(crate) fn undrain(context: &Context, args: &ServiceArgs) -> Result<Exit, Failure> {
    let (node, body) = set_service(context, args, "/v1/admin/undrain")?;
    if body["state"] == "leaving" {
        let line = format!("{} is shutting down, and cannot be undrained", node.label);
        return Err(Failure::new(line));
    }
    let left = wait(context, args, &node, "waiting until the node is ready", lacks_of_undrain)?;
    report(context, &node, &body, left)
}

fn set_service(
    context: &Context,
    args: &ServiceArgs,
    path: &str,
) -> Result<(OneNode, Json), Failure> {
    context.runtime.block_on(async {
        let node = find(context, &args.target).await?;
        let body = node.ask(context, (Method::POST, path)).await?;
        Ok((node, body))
    })
}

/// Returns the node that is meant by an address or the beginning of an id.
async fn find(context: &Context, target: &str) -> Result<OneNode, Failure> {
    if target.contains(':') {
        let address = target.parse().map_err(|error| Failure::usage(format!("NODE: {error}")))?;
        return OneNode::at(context, context.resolve(&address).await?).await;
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let line = format!("NODE: {target:?} is neither HOST:PORT nor the beginning of an id");
        return Err(Failure::usage(line));
    }
    let survey = survey::needed(context).await?;
    let target = target.to_ascii_lowercase();
    let mut found = survey.nodes.iter().filter(|node| node.id().starts_with(&target));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(OneNode::from(node)),
        (None, _) => Err(Failure::new(format!("no node that answers has the id {target}…"))),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("NODE: the ids of several nodes begin with {target}")))
        }
    }
}

/// What is still to be waited for; none if it is done.
type Lacks = fn(&Survey, &NodeView) -> Option<String>;

/// Asks all nodes again and again until nothing is lacking. Returns what lacks in the end.
fn wait(
    context: &Context,
    args: &ServiceArgs,
    node: &OneNode,
    what: &'static str,
    lacks: Lacks,
) -> Result<Option<String>, Failure> {
    let Some(most) = args.wait else { return Ok(None) };
    let _progress = Progress::endless(context, what);
    let end = clock::elapsed() + most;
    // All nodes that this one knows.
    let seed = node.address.try_into().map_err(|error| Failure::new(format!("{error}")))?;
    let discovery = Some("seeds".to_owned());
    let everybody = Global {
        node: None,
        seed: vec![seed],
        discovery,
        dns: Vec::new(),
        ..context.global.clone()
    };
    let everybody = Context::new(everybody)?;
    loop {
        let survey = everybody.runtime.block_on(survey::all(&everybody));
        let view = survey.nodes.iter().find(|view| view.id() == node.id);
        let left = match view {
            Some(view) => lacks(&survey, view),
            None => Some("the node does not answer".to_owned()),
        };
        if left.is_none() || clock::elapsed() >= end {
            return Ok(left);
        }
        everybody.runtime.block_on(async { tokio::time::sleep(ASK_EVERY).await });
    }
}

/// A node is drained when all others that answer know, and nothing waits to be sent.
fn lacks_of_drain(survey: &Survey, node: &NodeView) -> Option<String> {
    let asks_it = |other: &&NodeView| {
        let mut rows = other.members().skip(1).filter(|row| row["id"] == node.id());
        rows.any(|row| matches!(row["state"].as_str(), Some("in-sync" | "warming")))
    };
    if let Some(other) = survey.nodes.iter().filter(|other| other.id() != node.id()).find(asks_it) {
        return Some(format!("{} has not noticed", other.label()));
    }
    // Whoever may drain a node may see its statistics.
    let waiting = node.stat("replication_queue_records").unwrap_or(0.0);
    (waiting > 0.0).then(|| format!("{waiting:.0} writes wait to be sent"))
}

fn lacks_of_undrain(_: &Survey, node: &NodeView) -> Option<String> {
    let state = node.own()["state"].as_str().unwrap_or("unknown");
    (state != "in-sync").then(|| format!("it is {state}"))
}

fn report(
    context: &Context,
    node: &OneNode,
    body: &Json,
    left: Option<String>,
) -> Result<Exit, Failure> {
    let exit = if left.is_none() { Exit::DONE } else { Exit::BAD_NEWS };
    if context.global.json {
        let document = json!({
            "id": node.id,
            "address": node.address.to_string(),
            "state": body["state"],
            "drained": body["drained"],
            "lacking": left,
        });
        return print_document(document, exit);
    }
    let what = match (&body["drained"], &body["state"]) {
        (Json::Bool(true), _) => "drained",
        (_, state) if state == "leaving" => "shutting down",
        _ => "in service",
    };
    print_line(&format!("{}: {what}", node.label))?;
    if let Some(left) = left {
        say(&format!("not done in time: {left}"));
    }
    Ok(exit)
}
