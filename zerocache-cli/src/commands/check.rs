//! `check`: one check for monitoring systems, with their exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.

use std::time::Duration;

use serde_json::json;
use zerocache_net::{clock, discovery::HostPort};

use crate::{
    args::{CheckArgs, CheckKind, Global},
    commands::{
        doctor::certificate_days,
        nodes::{Member, matrix},
    },
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    print_line,
    survey::{self, hit_percent},
};

/// Where the tool runs beside a node, as in a container of the node.
const NODE_DEFAULT: &str = "127.0.0.1:6789";

/// A hit ratio below this while entries are evicted says that the memory is too small.
const HITS_PERCENT_LOW: f64 = 50.0;

/// A retention of deletes below this is too short for repair, in seconds.
const RETENTION_LOW_S: f64 = 60.0;

/// What a monitoring system makes of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn exit(self) -> Exit {
        Exit(self as u8)
    }
}

/// A verdict, what was seen, and the numbers behind it.
struct Outcome {
    verdict: Verdict,
    text: String,
    /// Name, value and unit.
    numbers: Vec<(&'static str, f64, &'static str)>,
}

impl Outcome {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into(), numbers: Vec::new() }
    }

    fn number(mut self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.numbers.push((name, value, unit));
        self
    }
}

/// Makes a check. Everything is a verdict, wrong settings too.
pub(crate) fn check(global: Global, args: &CheckArgs) -> Result<Exit, Failure> {
    let is_json = global.json;
    let checked = Context::new(global).and_then(|context| {
        context.runtime.block_on(async {
            match args.kind {
                CheckKind::Ready => ready(&context).await,
                CheckKind::Cluster => cluster(&context).await,
                CheckKind::Cert => cert(&context, args).await,
                CheckKind::Memory => memory(&context, args.watch).await,
            }
        })
    });
    let outcome = checked.unwrap_or_else(|failure| {
        // Silence of a node is what the first two look for.
        let is_verdict = matches!(args.kind, CheckKind::Ready | CheckKind::Cluster)
            && failure.exit() == Exit::UNREACHABLE;
        let verdict = if is_verdict { Verdict::Critical } else { Verdict::Unknown };
        Outcome::new(verdict, failure.line())
    });
    let Outcome { verdict, text, numbers } = outcome;
    if is_json {
        let numbers: serde_json::Map<_, _> =
            numbers.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).into())).collect();
        let kind = args.kind.as_str();
        let json =
            json!({ "check": kind, "verdict": verdict.as_str(), "text": text, "numbers": numbers });
        return print_document(json, verdict.exit());
    }
    let numbers: Vec<_> =
        numbers.iter().map(|(name, value, unit)| format!("{name}={value}{unit}")).collect();
    let performance =
        if numbers.is_empty() { String::new() } else { format!(" | {}", numbers.join(" ")) };
    let kind = args.kind.as_str();
    print_line(&format!("{} - {kind}: {text}{performance}", verdict.as_str()))?;
    Ok(verdict.exit())
}

/// The node to look at: the one that was named, or else a neighbour of the tool.
fn node(context: &Context) -> Result<HostPort, Failure> {
    match &context.global.node {
        Some(node) => Ok(node.clone()),
        None => NODE_DEFAULT.parse().map_err(|_| Failure::usage(NODE_DEFAULT.to_owned())),
    }
}

/// Whether one node is in sync. Everybody may ask.
async fn ready(context: &Context) -> Result<Outcome, Failure> {
    let to = context.resolve(&node(context)?).await?;
    let request = (hyper::Method::GET, "/readyz", bytes::Bytes::new());
    let started = clock::elapsed();
    let response = context.request(to, request).await;
    let response = response.map_err(|failure| crate::context::no_answer(to, failure))?;
    let state: String = String::from_utf8_lossy(&response.body).trim().chars().take(80).collect();
    let verdict = match state.as_str() {
        "in-sync" => Verdict::Ok,
        "warming" | "leaving" => Verdict::Warning,
        _ => return Ok(Outcome::new(Verdict::Unknown, format!("{to} answers {state:?}"))),
    };
    let took_s = clock::elapsed().saturating_sub(started).as_secs_f64();
    Ok(Outcome::new(verdict, format!("{to} is {state}")).number("time", took_s, "s"))
}

/// Whether everybody sees everybody.
async fn cluster(context: &Context) -> Result<Outcome, Failure> {
    let survey = survey::needed(context).await?;
    let members = matrix(&survey);
    let ready = survey.nodes.iter().filter(|node| node.own()["state"] == "in-sync").count();
    let (known, answering) = (members.len(), survey.nodes.len());
    let trouble: Vec<_> = members.iter().filter(|member| member.is_trouble()).collect();
    let verdict = if trouble.iter().any(|member| !member.answers()) {
        Verdict::Critical
    } else if !trouble.is_empty() || ready < answering {
        Verdict::Warning
    } else {
        Verdict::Ok
    };
    let mut text = format!("{answering} of {known} nodes answer, {ready} are in sync");
    let names: Vec<_> = trouble.iter().map(|member| Member::name(member)).collect();
    if !names.is_empty() {
        text += &format!("; not seen by all: {}", names.join(", "));
    }
    Ok(Outcome::new(verdict, text)
        .number("nodes", known as f64, "")
        .number("answering", answering as f64, "")
        .number("in_sync", ready as f64, ""))
}

/// How long the certificates of the nodes are valid.
async fn cert(context: &Context, args: &CheckArgs) -> Result<Outcome, Failure> {
    let survey = survey::needed(context).await?;
    let days = survey.nodes.iter().filter_map(|node| Some((node.certificate_days()?, node)));
    let least = days.min_by(|(one, _), (other, _)| one.total_cmp(other));
    let Some((days, node)) = least else {
        return Ok(Outcome::new(Verdict::Unknown, "no node was asked over TLS"));
    };
    let (warning, critical) = certificate_days(&context.credentials);
    let verdict = match days {
        _ if days < args.critical_days.unwrap_or(critical) => Verdict::Critical,
        _ if days < args.warning_days.unwrap_or(warning) => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let text = format!("{days:.1} days left at {}", node.label());
    Ok(Outcome::new(verdict, text).number("days", days, ""))
}

/// Whether the nodes have enough memory for what they do now.
async fn memory(context: &Context, watch: Duration) -> Result<Outcome, Failure> {
    let (before, survey) = survey::twice(context, watch).await?;
    let (mut used, mut limit, mut evicted) = (0.0, 0.0, 0.0);
    let mut short = Vec::new();
    for node in &survey.nodes {
        let stats = node.stats.as_ref().map_err(|why| Failure::new(why.clone()))?;
        let number = |name: &str| stats[name].as_f64().unwrap_or_default();
        used += number("bytes");
        limit += number("bytes_max");
        evicted += number("evicted");
        if number("tombstone_retention_ms") < RETENTION_LOW_S * 1_000.0 {
            short.push(node.label());
        }
    }
    let growth = |counter: &str| {
        survey.nodes.iter().filter_map(|node| node.growth(&before, counter)).sum::<f64>()
    };
    let hit_percent = hit_percent(|counter| Some(growth(counter)));
    let (verdict, text) = if !short.is_empty() {
        let text = format!("deletes are remembered for less than a minute at {}", short.join(", "));
        (Verdict::Critical, text)
    } else if let Some(low) = hit_percent.filter(|percent| *percent < HITS_PERCENT_LOW)
        && growth("evicted") > 0.0
    {
        (Verdict::Warning, format!("entries are evicted, and {low:.1} % of reads hit"))
    } else {
        (Verdict::Ok, format!("{} of {}", crate::table::bytes(used), crate::table::bytes(limit)))
    };
    let outcome = Outcome::new(verdict, text)
        .number("bytes", used, "B")
        .number("bytes_max", limit, "B")
        .number("evicted", evicted, "c");
    Ok(match hit_percent {
        Some(percent) => outcome.number("hits", (percent * 10.0).round() / 10.0, "%"),
        // Nobody read.
        None => outcome,
    })
}
