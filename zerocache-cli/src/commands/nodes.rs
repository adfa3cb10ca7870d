//! `nodes`: the members of the cluster, as all nodes see them.

mod ownership;

use std::collections::{BTreeMap, BTreeSet};

use anstyle::Style;
use serde_json::{Value as Json, json};

use crate::{
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    say, style,
    survey::{self, NodeView, Survey, hit_percent, member_address},
    table,
};

/// A member, and who sees it.
pub(crate) struct Member<'a> {
    /// What is known of it, from itself if it answers.
    row: &'a Json,
    /// Its own view, if it answers.
    view: Option<&'a NodeView>,
    /// The nodes that monitor it and see it, itself included.
    seen_by: usize,
    /// The nodes that should see it.
    observers: usize,
    /// Those of them that do not.
    not_seen_by: Vec<&'a NodeView>,
    /// How many nodes of its region keep a value; none where all do, or nobody says.
    replicas: Option<u64>,
    /// The part of the copies of its region that is to be there, in percent, where not every node keeps everything.
    share_percent: Option<f64>,
}

impl Member<'_> {
    /// Returns whether it does not answer, or somebody does not see it.
    pub(crate) fn is_trouble(&self) -> bool {
        self.view.is_none() || self.seen_by < self.observers
    }

    /// Returns whether it answers the tool.
    pub(crate) const fn answers(&self) -> bool {
        self.view.is_some()
    }

    /// Returns its region and address.
    pub(crate) fn name(&self) -> String {
        name(self.row)
    }
}

/// Returns all members that a node knows, and who sees them.
pub(crate) fn matrix(survey: &Survey) -> Vec<Member<'_>> {
    let mut rows: BTreeMap<&str, &Json> = BTreeMap::new();
    for node in &survey.nodes {
        for row in node.members() {
            rows.entry(row["id"].as_str().unwrap_or_default()).or_insert(row);
        }
    }
    for node in &survey.nodes {
        rows.insert(node.id(), node.own());
    }
    let states: Vec<_> = survey.nodes.iter().map(|node| (node, states(node))).collect();
    let mut members: Vec<_> = rows.iter().map(|(id, row)| member(&states, id, row)).collect();
    let shares = ownership::of_all(survey);
    for member in &mut members {
        let share = shares.get(member.row["id"].as_str().unwrap_or_default());
        member.share_percent = share.copied();
        let region = &member.row["region"];
        let of_region = survey.nodes.iter().find(|node| node.own()["region"] == *region);
        member.replicas = of_region.and_then(|node| node.cluster["placement"]["replicas"].as_u64());
    }
    members.sort_by_key(|member| {
        (member.row["region"].as_str().unwrap_or_default(), member_address(member.row))
    });
    members
}

/// The states of the members in a node's view, by id.
fn states(node: &NodeView) -> BTreeMap<&str, &str> {
    node.members().filter_map(|row| Some((row["id"].as_str()?, row["state"].as_str()?))).collect()
}

fn member<'a>(
    states: &[(&'a NodeView, BTreeMap<&str, &str>)],
    id: &str,
    row: &'a Json,
) -> Member<'a> {
    let view = states.iter().map(|(node, _)| *node).find(|node| node.id() == id);
    let (mut seen_by, mut not_seen_by) = (0, Vec::new());
    for (node, states) in states {
        match states.get(id).copied() {
            // It does not talk to it, and need not.
            Some("unmonitored") => {}
            Some("unreachable") => not_seen_by.push(*node),
            Some(_) => seen_by += 1,
            // One that does not answer us either has gone.
            None if view.is_none() => {}
            None => not_seen_by.push(*node),
        }
    }
    let observers = seen_by + not_seen_by.len();
    Member { row, view, seen_by, observers, not_seen_by, replicas: None, share_percent: None }
}

/// Prints the members.
pub(crate) fn nodes(context: &Context) -> Result<Exit, Failure> {
    let survey = context.runtime.block_on(survey::needed(context))?;
    let members = matrix(&survey);
    // One node's word is enough for a look at that node alone.
    let is_bad = context.global.node.is_none() && members.iter().any(Member::is_trouble);
    let exit = if is_bad { Exit::BAD_NEWS } else { Exit::DONE };
    if context.global.json {
        let nodes: Vec<_> = members.iter().map(to_json).collect();
        let silent = survey
            .silent
            .iter()
            .map(|silent| json!({ "address": silent.address.to_string(), "reason": silent.why }));
        let silent: Vec<_> = silent.collect();
        let cluster = context.cluster();
        return print_document(
            json!({ "cluster": cluster, "nodes": nodes, "silent": silent }),
            exit,
        );
    }
    const HEADING: [&str; 14] = [
        "ID", "REGION", "ZONE", "ADDRESS", "STATE", "NAME", "SHARE", "LATENCY", "ENTRIES", "BYTES",
        "HIT%", "VERSION", "UPTIME", "SEEN-BY",
    ];
    let rows: Vec<_> = members.iter().map(to_row).collect();
    style::print(&table::styled_lines(&HEADING, &rows, cell_style))?;
    if !context.global.quiet {
        notes(&survey, &members).iter().for_each(|note| say(note));
    }
    Ok(exit)
}

/// The style of a cell: states, and by how many a node is seen.
fn cell_style(column: usize, text: &str) -> Style {
    match (column, text) {
        (4, "in-sync") => style::GOOD,
        (4, "warming" | "leaving") => style::ODD,
        (4, _) => style::BAD,
        (13, seen) if seen.split_once('/').is_some_and(|(by, of)| by != of) => style::BAD,
        _ => Style::new(),
    }
}

/// What does not fit into the table.
fn notes(survey: &Survey, members: &[Member<'_>]) -> Vec<String> {
    let unseen = members.iter().filter(|member| !member.not_seen_by.is_empty()).map(|member| {
        let by: Vec<_> = member.not_seen_by.iter().map(|node| node.label()).collect();
        format!("{} is not seen by {}", name(member.row), by.join(", "))
    });
    let whys: BTreeSet<_> = survey.silent.iter().map(|silent| silent.why.clone()).collect();
    let stats = survey.nodes.iter().filter_map(|node| node.stats.as_ref().err().cloned());
    unseen.chain(whys).chain(stats.take(1)).collect()
}

fn name(row: &Json) -> String {
    let region = row["region"].as_str().unwrap_or("-");
    member_address(row).map_or_else(|| region.to_owned(), |address| format!("{region} {address}"))
}

/// The part of the reads of a node that found something since its start, in percent.
fn hits(node: &NodeView) -> Option<f64> {
    hit_percent(|counter| node.stat(counter))
}

fn state<'a>(member: &'a Member<'_>) -> &'a str {
    let known = member.row["state"].as_str().unwrap_or("-");
    // Others may not have noticed yet.
    if member.view.is_none() { "no answer" } else { known }
}

fn to_row(member: &Member<'_>) -> Vec<String> {
    let (row, view) = (member.row, member.view);
    let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
    let stat = |name: &str| view.and_then(|view| view.stat(name));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let address = member_address(row).or(view.map(|view| view.address));
    vec![
        text("id"),
        text("region"),
        text("zone"),
        or_dash(address.map(|address| address.to_string())),
        state(member).to_owned(),
        or_dash(stated_name(row).map(str::to_owned)),
        or_dash(member.share_percent.map(|percent| format!("{percent:.1}%"))),
        or_dash(view.map(|view| format!("{:.1} ms", millis(view)))),
        or_dash(stat("entries").map(|entries| format!("{entries:.0}"))),
        or_dash(stat("bytes").map(table::bytes)),
        or_dash(view.and_then(hits).map(|percent| format!("{percent:.1}"))),
        text("version"),
        or_dash(view.and(row["since_ms"].as_u64()).map(table::span)),
        format!("{}/{}", member.seen_by, member.observers),
    ]
}

fn millis(view: &NodeView) -> f64 {
    view.took.as_secs_f64() * 1_000.0
}

/// The name that a node states; none if its address stands for one.
fn stated_name(row: &Json) -> Option<&str> {
    let address = member_address(row).map(|address| address.to_string());
    row["name"].as_str().filter(|name| Some(*name) != address.as_deref())
}

fn to_json(member: &Member<'_>) -> Json {
    let (row, view) = (member.row, member.view);
    let stat = |name: &str| view.and_then(|view| Some(view.stats.as_ref().ok()?[name].clone()));
    let address = member_address(row).or(view.map(|view| view.address));
    let not_seen_by: Vec<_> = member.not_seen_by.iter().map(|node| node.id()).collect();
    json!({
        "id": row["id"],
        "name": row["name"],
        "region": row["region"],
        "replicas": member.replicas,
        "share_percent": member.share_percent,
        "zone": row["zone"],
        "address": address.map(|address| address.to_string()),
        "answers": view.is_some(),
        "state": view.map(|_| row["state"].clone()),
        "latency_ms": view.map(millis),
        "entries": stat("entries"),
        "bytes": stat("bytes"),
        "bytes_max": row["bytes_max"],
        "hit_percent": view.and_then(hits),
        "version": row["version"],
        "uptime_ms": view.map(|_| row["since_ms"].clone()),
        "seen_by": member.seen_by,
        "observers": member.observers,
        "not_seen_by": not_seen_by,
    })
}
