//! The copies of an image: listed, the same from each node, verified, removed, made again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use zerocache_client::ZerocacheClient;
use zerocache_client::ops::{CopyState, Locations, Verdict};

use super::deployment::{Deployment, image};
use super::load::get;
use super::origin::Origin;
use super::report::Report;
use crate::clock::now;
use crate::picture::variant_key;
use crate::query::{Params, VariantRules};
use crate::source::Source;

/// The longest wait until a change is everywhere.
const SPREAD_MAX: Duration = Duration::from_secs(5);

const REGIONS: [&str; 6] = ["london", "london", "london", "sydney", "sydney", "sydney"];

pub(super) async fn run(program: PathBuf) -> Result<Report> {
    let mut report = Report::default();
    let origin = Origin::start((400, 300), Duration::ZERO).await?;
    let mut deployment = Deployment::start(&program, &REGIONS, &[]).await?;
    let service = deployment.serve("london", &[]).await?;
    let made = get(&deployment.http, &image(service.address, &origin, 0, "w=250")).await;
    anyhow::ensure!(made.status == 200, "no image");
    let source = Source::parse(&origin.url(0))?;
    let variant = VariantRules::default().variant(&Params::parse("w=250")?, false)?;
    let key = variant_key(&source, &variant);
    let mut clients = Vec::new();
    for node in 0..REGIONS.len() {
        clients.push(deployment.client(node).await?);
    }
    copies(&mut report, &clients, &key).await?;
    let killed = replaced_node(&mut report, &mut deployment, &key).await?;
    let client = deployment.client(5).await?;
    let purged = client.invalidate_tag(source.tag()).each_node().await?;
    let lacking = purged.lacking().filter(|node| node.address != Some(killed));
    report.equal("nodes that lack a purge, beside the killed one", 0, lacking.count());
    let left = served(&client.locate(&key).await?);
    report.equal("copies that are served after the purge", 0, left);
    get(&deployment.http, &image(service.address, &origin, 0, "w=250")).await;
    let again = wait_for_copies(&client, &key, REGIONS.len()).await?;
    report.equal("copies after the next request", REGIONS.len(), served(&again));
    report.note("6 nodes in 2 regions. A location is what a node had when it was asked.");
    Ok(report)
}

async fn copies(report: &mut Report, clients: &[ZerocacheClient], key: &str) -> Result<()> {
    let mut views = Vec::new();
    let mut is_nearest = 0;
    for client in clients {
        wait_for_copies(client, key, REGIONS.len()).await?;
        let locations = client.locate(key).digests().await?;
        let nearest = locations.nearest().context("no copy")?;
        // On loopback another region is as near as the own one: latency is what is measured.
        let least = locations.iter().filter_map(|at| at.latency).min();
        is_nearest += usize::from(nearest.latency == least);
        let verified = locations.iter().filter(|at| at.verdict == Verdict::Same).count();
        let mut view: Vec<_> =
            locations.iter().map(|at| (at.address, at.copy.and_then(|copy| copy.digest))).collect();
        view.sort_unstable();
        views.push((locations.version, view, verified));
    }
    report.equal("copies, verified by their digests", REGIONS.len(), views[0].2);
    let same = views.iter().filter(|view| **view == views[0]).count();
    report.equal("nodes from which the same is seen", REGIONS.len(), same);
    report.equal("clients that choose the copy of least latency", REGIONS.len(), is_nearest);
    Ok(())
}

/// A node dies, and an empty one takes its place: it gets its copy by itself.
async fn replaced_node(
    report: &mut Report,
    deployment: &mut Deployment,
    key: &str,
) -> Result<SocketAddr> {
    let (_, mut node) = deployment.nodes.remove(1);
    node.kill();
    deployment.add_node("london", &[]).await?;
    let client = deployment.client(0).await?;
    let locations = wait_for_copies(&client, key, REGIONS.len()).await?;
    let (_, new) = deployment.nodes.last().context("a node")?;
    let copied = locations.iter().any(|at| {
        at.address == Some(new.address)
            && at.copy.is_some_and(|copy| copy.state == CopyState::Value)
    });
    report.equal("the node in place of a killed one has a copy", true, copied);
    Ok(node.address)
}

/// The copies that a read would get.
fn served(locations: &Locations) -> usize {
    let is_served =
        |copy: zerocache_client::ops::KeyCopy| copy.state == CopyState::Value && !copy.is_purged;
    locations.iter().filter(|at| at.copy.is_some_and(is_served)).count()
}

/// Returns the copies when there are so many, or those that there are after a while.
async fn wait_for_copies(client: &ZerocacheClient, key: &str, count: usize) -> Result<Locations> {
    let begin = now();
    loop {
        let locations = client.locate(key).await?;
        if served(&locations) == count || now() - begin > SPREAD_MAX {
            return Ok(locations);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
