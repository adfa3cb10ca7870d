//! `top`: what each node does, measured between two answers.

use std::io::IsTerminal as _;

use serde_json::{Value as Json, json};
use zerocache_net::clock;

use super::hot_keys::HotKeys;
use crate::{
    args::TopArgs,
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print,
    survey::{self, NodeView, Survey, hit_percent},
    table,
};

/// The most keys of `--hot`.
const HOT_MAX: usize = 20;

/// Clears the screen of a terminal, and returns to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What a node did between two answers.
struct Rates<'a> {
    node: &'a NodeView,
    reads: Option<f64>,
    writes: Option<f64>,
    hit_percent: Option<f64>,
    evictions: Option<f64>,
    /// Percentiles of the durations of reads and of puts, in microseconds.
    reads_us: [Option<u64>; 2],
    puts_us: [Option<u64>; 2],
}

/// The percentiles that are shown.
const PERCENTILES: [u64; 2] = [50, 99];

impl<'a> Rates<'a> {
    fn new(node: &'a NodeView, before: &Survey, seconds: f64) -> Self {
        let growth = |counter: &str| node.growth(before, counter);
        let rate = |counters: &[&str]| {
            let sum: Option<f64> = counters.iter().map(|counter| growth(counter)).sum();
            sum.map(|sum| sum / seconds.max(0.001))
        };
        let percentiles = |operation: &str| {
            let histogram = ("request_duration_us", operation);
            let growth = node.histogram_growth(before, histogram);
            PERCENTILES.map(|percent| growth.as_ref()?.percentile(percent))
        };
        Self {
            node,
            reads: rate(&["hits", "stale_hits", "misses"]),
            writes: rate(&["puts", "deletes"]),
            hit_percent: hit_percent(growth),
            evictions: rate(&["evicted"]),
            reads_us: percentiles("get"),
            puts_us: percentiles("put"),
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
            times(self.reads_us),
            times(self.puts_us),
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
            "get_p50_us": self.reads_us[0],
            "get_p99_us": self.reads_us[1],
            "put_p50_us": self.puts_us[0],
            "put_p99_us": self.puts_us[1],
            "entries": self.node.stat("entries"),
            "bytes": self.node.stat("bytes"),
        })
    }
}

/// Two durations in microseconds, as text.
fn times(micros: [Option<u64>; 2]) -> String {
    micros.map(|micros| micros.map_or_else(|| "-".to_owned(), table::micros)).join("/")
}

/// Prints the rates once, or until it is ended.
pub(crate) fn top(context: &Context, args: &TopArgs) -> Result<Exit, Failure> {
    const HEADING: [&str; 10] = [
        "NODE",
        "READS/S",
        "WRITES/S",
        "HIT%",
        "GET-P50/P99",
        "PUT-P50/P99",
        "ENTRIES",
        "BYTES",
        "EVICTIONS/S",
        "ACCEPTED",
    ];
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
        let addresses = survey.nodes.iter().map(|node| node.address);
        let ask_hot = || context.runtime.block_on(HotKeys::ask(context, addresses, HOT_MAX));
        let hot = args.hot.then(ask_hot);
        if context.global.json {
            let nodes: Vec<_> = rates.iter().map(Rates::to_json).collect();
            let mut document = json!({ "nodes": nodes });
            if let Some(hot) = hot {
                document["hot_keys"] = hot.to_json();
            }
            print_document(document, Exit::DONE)?;
        } else {
            let rows: Vec<_> = rates.iter().map(Rates::to_row).collect();
            let clear = if is_terminal && !args.once { CLEAR } else { "" };
            let hot = hot.map(|hot| format!("\n{}", hot.to_text())).unwrap_or_default();
            print(&format!("{clear}{}{hot}", table::lines(&HEADING, &rows)))?;
        }
        if args.once {
            return Ok(Exit::DONE);
        }
        drop(rates);
        (before, asked_s) = (survey, now_s);
    }
}
