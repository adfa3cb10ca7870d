//! `top`: what each node does, measured between two answers.

use std::io::IsTerminal as _;

use serde_json::{Value as Json, json};
use zerocache_net::clock;

use crate::{
    args::TopArgs,
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print,
    survey::{self, NodeView, Survey, hit_percent},
    table,
};

/// Clears the screen of a terminal, and returns to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What a node did between two answers.
struct Rates<'a> {
    node: &'a NodeView,
    reads: Option<f64>,
    writes: Option<f64>,
    hit_percent: Option<f64>,
    evictions: Option<f64>,
}

impl<'a> Rates<'a> {
    fn new(node: &'a NodeView, before: &Survey, seconds: f64) -> Self {
        let growth = |counter: &str| node.growth(before, counter);
        let rate = |counters: &[&str]| {
            let sum: Option<f64> = counters.iter().map(|counter| growth(counter)).sum();
            sum.map(|sum| sum / seconds.max(0.001))
        };
        Self {
            node,
            reads: rate(&["hits", "stale_hits", "misses"]),
            writes: rate(&["puts", "deletes"]),
            hit_percent: hit_percent(growth),
            evictions: rate(&["evicted"]),
        }
    }

    fn to_row(&self) -> Vec<String> {
        let number =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        let stat = |name: &str| self.node.stat(name);
        vec![
            self.node.label(),
            number(self.reads),
            number(self.writes),
            number(self.hit_percent),
            stat("entries").map_or_else(|| "-".to_owned(), |entries| format!("{entries:.0}")),
            stat("bytes").map_or_else(|| "-".to_owned(), table::bytes),
            number(self.evictions),
            stat("connections_accepted").map_or_else(|| "-".to_owned(), |n| format!("{n:.0}")),
        ]
    }

    fn to_json(&self) -> Json {
        json!({
            "id": self.node.id(),
            "region": self.node.region(),
            "reads_per_s": self.reads,
            "writes_per_s": self.writes,
            "hit_percent": self.hit_percent,
            "evictions_per_s": self.evictions,
            "entries": self.node.stat("entries"),
            "bytes": self.node.stat("bytes"),
        })
    }
}

/// Prints the rates once, or until it is ended.
pub(crate) fn top(context: &Context, args: &TopArgs) -> Result<Exit, Failure> {
    const HEADING: [&str; 8] =
        ["NODE", "READS/S", "WRITES/S", "HIT%", "ENTRIES", "BYTES", "EVICTIONS/S", "ACCEPTED"];
    let is_terminal = std::io::stdout().is_terminal();
    let ask = || -> Result<(Survey, f64), Failure> {
        let survey = context.runtime.block_on(survey::needed(context))?;
        Ok((survey, clock::elapsed().as_secs_f64()))
    };
    let (mut before, mut asked_s) = ask()?;
    loop {
        context.runtime.block_on(async { tokio::time::sleep(args.interval).await });
        let (survey, now_s) = ask()?;
        let rates = survey.nodes.iter().map(|node| Rates::new(node, &before, now_s - asked_s));
        let rates: Vec<_> = rates.collect();
        if context.global.json {
            let nodes: Vec<_> = rates.iter().map(Rates::to_json).collect();
            print_document(json!({ "nodes": nodes }), Exit::DONE)?;
        } else {
            let rows: Vec<_> = rates.iter().map(Rates::to_row).collect();
            let clear = if is_terminal && !args.once { CLEAR } else { "" };
            print(&format!("{clear}{}", table::lines(&HEADING, &rows)))?;
        }
        if args.once {
            return Ok(Exit::DONE);
        }
        drop(rates);
        (before, asked_s) = (survey, now_s);
    }
}
