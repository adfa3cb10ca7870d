//! The shares of nodes where not every node keeps everything, as the nodes compute them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use zerocache_core::{
    cluster::{Placement, PlacementNode, Replicas},
    key::KeyHash,
    version::Incarnation,
};

use crate::survey::{NodeView, Survey};

/// Keys by which shares are estimated: they are right to about a hundredth of their value.
const KEYS: u64 = 16_384;

/// Returns the share of each node in the copies of its region, in percent, by id.
pub(super) fn of_all(survey: &Survey) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    let mut regions = Vec::new();
    for node in &survey.nodes {
        if !regions.contains(&node.region())
            && let Some(of_region) = of_region(node)
        {
            regions.push(node.region());
            shares.extend(of_region);
        }
    }
    shares
}

/// Returns the shares in the region of a node, by its view; none where every node keeps everything. Others may own
/// keys for a while whom the view does not list: then the result would not be that of the nodes, and there is none.
fn of_region(view: &NodeView) -> Option<BTreeMap<String, f64>> {
    let placement = &view.cluster["placement"];
    let replicas = Replicas::from_number(placement["replicas"].as_u64()?);
    let conflicts = placement["conflicts"].as_array()?;
    let owns = |row: &&Json| {
        let is_there = !matches!(row["state"].as_str(), None | Some("unreachable" | "leaving"));
        is_there && row["region"] == view.region() && !conflicts.contains(&row["name"])
    };
    let node = |row| -> Option<PlacementNode<'_>> {
        let row: &Json = row;
        Some(PlacementNode {
            node: row["id"].as_str()?.parse::<Incarnation>().ok()?,
            name: row["name"].as_str()?,
            bytes_max: row["bytes_max"].as_u64()?,
            zone: row["zone"].as_str(),
        })
    };
    let computed = Placement::new(replicas, view.members().filter(owns).filter_map(node));
    if placement["id"] != format!("{:016x}", computed.id()).as_str() {
        return None;
    }
    let mut counts = BTreeMap::<Incarnation, u64>::new();
    for n in 0..KEYS {
        for owner in &*computed.owners(KeyHash::of(&n.to_le_bytes())) {
            *counts.entry(*owner).or_default() += 1;
        }
    }
    let all: u64 = counts.values().sum();
    let percent = |count: u64| 100.0 * count as f64 / all as f64;
    Some(counts.into_iter().map(|(id, count)| (id.to_string(), percent(count))).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn view(id: &str) -> NodeView {
        let row = |n: u64, mebibytes: u64, state: &str| {
            json!({
                "id": format!("{n:016x}"), "name": format!("n{n}"), "region": "oslo", "zone": null,
                "state": state, "bytes_max": mebibytes << 20,
            })
        };
        let nodes = [row(1, 64, "in-sync"), row(2, 128, "warming"), row(3, 64, "unreachable")];
        let placement = json!({ "replicas": 1, "id": id, "complete": true, "conflicts": [] });
        NodeView {
            address: ([10, 0, 0, 1], 6789).into(),
            took: Duration::ZERO,
            clock_ms: None,
            cluster: json!({ "nodes": nodes, "placement": placement }),
            stats: Err(String::new()),
            certificate_end_s: None,
        }
    }

    #[test]
    fn shares_follow_budgets_and_are_those_of_the_nodes() {
        let own = |n, name, mebibytes: u64| PlacementNode {
            node: Incarnation(n),
            name,
            bytes_max: mebibytes << 20,
            zone: None,
        };
        let replicas = Replicas::from_number(1);
        let placement = Placement::new(replicas, [own(1, "n1", 64), own(2, "n2", 128)]);
        let shares = of_region(&view(&format!("{:016x}", placement.id()))).expect("shares");
        let share = |n: u64| shares.get(&format!("{n:016x}")).copied().unwrap_or_default();
        assert!((share(1) - 33.3).abs() < 2.0 && (share(2) - 66.7).abs() < 2.0, "{shares:?}");
        assert_eq!(share(3), 0.0);
        // Others are still counted on.
        assert_eq!(of_region(&view("0000000000000007")), None);
    }
}
