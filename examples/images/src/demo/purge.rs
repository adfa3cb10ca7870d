//! One purge ends all variants of an original, in both regions.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zerocache_client::{Version, ZerocacheClient};

use super::deployment::{Deployment, KEY, image};
use super::load::{get_all, percentile};
use super::origin::Origin;
use super::processes::Process;
use super::report::{Report, progress};
use crate::clock::now;
use crate::purge::HOLD;
use crate::source::Source;

/// The variants that are written at once.
const BATCH: usize = 500;

/// The time after which no old variant is served.
const OLD_MAX: Duration = Duration::from_secs(2);

/// The time after which a region that was cut off has the purge.
const HEALED_MAX: Duration = Duration::from_secs(10);

/// How long a region is cut off.
const CUT: Duration = Duration::from_secs(1);

/// Purges whose time is measured.
const MEASURED: usize = 20;

pub(super) async fn run(program: PathBuf, quick: bool) -> Result<Report> {
    let mut report = Report::default();
    let origin = Origin::start((400, 300), Duration::ZERO).await?;
    let deployment =
        Deployment::start(&program, &["london", "london", "sydney", "sydney"], &[]).await?;
    let service = deployment.serve("london", &[]).await?;
    let (london, sydney) = (deployment.client(0).await?, deployment.client(2).await?);
    let count = if quick { 2_000 } else { 100_000 };
    let source = Source::parse(&origin.url(0))?;

    let made = |n: usize| image(service.address, &origin, 0, &format!("w=250&q={}", n * 5));
    get_all(&deployment.http, (1..=20).map(made).collect(), 4).await;
    fill(&london, &source, count).await?;
    report.equal(
        "variants in both regions before",
        2 * count,
        present(&[&london, &sydney], count).await?,
    );
    let begin = now();
    let (_, version) = purge(&deployment, &service, &source).await?;
    let what = "no old variant in either region";
    gone(&mut report, what, begin, &[&london, &sydney], count, OLD_MAX).await?;
    let answers = get_all(&deployment.http, (1..=20).map(made).collect(), 4).await;
    let hits = answers.iter().filter(|answer| answer.cache == "hit").count();
    report.equal("20 converted variants that were served old", 0, hits);

    // What is written within this time after a purge ends with it.
    tokio::time::sleep(HOLD).await;
    fill(&london, &source, count.min(2_000)).await?;
    london.invalidate_tag(source.tag()).replay(version.parse::<Version>()?).await?;
    let stays = present(&[&london], count.min(2_000)).await?;
    report.equal("newer variants after the same purge again", count.min(2_000), stays);
    cut(&mut report, &deployment, &service, &source, count.min(2_000)).await?;

    let mut times = Vec::new();
    for number in 0..MEASURED {
        let source = Source::parse(&origin.url(number))?;
        times.push(Duration::from_secs_f64(purge(&deployment, &service, &source).await?.0 / 1e3));
    }
    let median = percentile(times, 0.5);
    let most = if quick { 20.0 } else { 1.0 };
    report.claim(
        "time of a purge (ack=local), p50",
        format!("at most {most} ms"),
        format!("{median:.2} ms"),
        median <= most,
    );
    report.note(format!(
        "{count} variants were written beside 20 that were converted: making them all takes an hour. The region was cut \
         off by stopping its nodes (SIGSTOP)."
    ));
    Ok(report)
}

fn key(number: usize) -> String {
    format!("images:variant:demo-{number}")
}

async fn fill(client: &ZerocacheClient, source: &Source, count: usize) -> Result<()> {
    progress(&format!("writing {count} variants"));
    for first in (0..count).step_by(BATCH) {
        let batch = (first..(first + BATCH).min(count)).map(|n| (key(n), "a variant"));
        client.put_many(batch, 3_600).tags([source.tag()]).await?;
    }
    Ok(())
}

/// How many of the written variants each of the clients finds.
async fn present(clients: &[&ZerocacheClient], count: usize) -> Result<usize> {
    let mut found = 0;
    for client in clients {
        for first in (0..count).step_by(BATCH) {
            let keys = (first..(first + BATCH).min(count)).map(key);
            found += client.get_many(keys).await?.into_iter().flatten().count();
        }
    }
    Ok(found)
}

/// Waits until nothing old is found, and reports the time since `begin`.
async fn gone(
    report: &mut Report,
    what: &str,
    begin: Instant,
    clients: &[&ZerocacheClient],
    count: usize,
    within: Duration,
) -> Result<()> {
    let mut left = present(clients, count).await?;
    while left > 0 && now() - begin < within {
        left = present(clients, count).await?;
    }
    let seen = match left {
        0 => format!("after at most {:.2} s", (now() - begin).as_secs_f64()),
        left => format!("{left} left"),
    };
    report.claim(what, format!("within {} s", within.as_secs()), seen, left == 0);
    Ok(())
}

/// Purges at the gateway, as a wiki would. Returns the milliseconds that it took there, and its version.
async fn purge(
    deployment: &Deployment,
    service: &Process,
    source: &Source,
) -> Result<(f64, String)> {
    let url: String =
        url::form_urlencoded::byte_serialize(source.url().as_str().as_bytes()).collect();
    let request =
        deployment.http.post(format!("http://{}/purge?ack=local&url={url}", service.address));
    let answer = request
        .header("authorization", format!("Bearer {KEY}"))
        .send()
        .await?
        .error_for_status()?;
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
    let version = body["version"].as_str().context("no version")?;
    Ok((body["ms"].as_f64().context("no time")?, version.to_owned()))
}

/// Purges while one region cannot be reached.
async fn cut(
    report: &mut Report,
    deployment: &Deployment,
    service: &Process,
    source: &Source,
    count: usize,
) -> Result<()> {
    progress("cutting off sydney");
    let sydney = || deployment.nodes.iter().filter(|(region, _)| *region == "sydney");
    // What a node of this region serves to its own callers.
    let client = deployment.client(2).await?;
    let (begin, mut before) = (now(), 0);
    while before < count && now() - begin < OLD_MAX {
        before = present(&[&client], count).await?;
    }
    report.equal("variants in a region that is cut off", count, before);
    sydney().try_for_each(|(_, node)| node.freeze(true))?;
    purge(deployment, service, source).await?;
    tokio::time::sleep(CUT).await;
    let begin = now();
    sydney().try_for_each(|(_, node)| node.freeze(false))?;
    let what = "no old variant after a region is back";
    gone(report, what, begin, &[&client], count, HEALED_MAX).await?;
    Ok(())
}
