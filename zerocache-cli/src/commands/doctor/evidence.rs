//! What the checks look at, and how it is collected.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value as Json;
use zerocache_core::wire::{Envelope, Hello, Request, RequestMessage, cluster_id};
use zerocache_net::{clock, transport::refuses_frames};

use super::certificate_days;
use crate::{
    context::Context,
    failure::Failure,
    survey::{self, NodeView, Questions, Survey},
};

/// What the checks look at.
#[derive(Default)]
pub(super) struct Evidence {
    /// All nodes, at the end of the time in which they are watched.
    pub(super) survey: Survey,
    /// The same nodes at its beginning.
    pub(super) before: Survey,
    /// `/v1/config` of the nodes that have it and show it, by node.
    pub(super) configs: BTreeMap<String, Json>,
    /// The nodes that are reached over HTTP only.
    pub(super) http_only: BTreeSet<String>,
    /// The region in which the client stands, if it was stated.
    pub(super) region: Option<String>,
    /// How many days a certificate has left where it is a warning, and where an error.
    pub(super) days: (f64, f64),
    /// The networks of this host, each an address and a mask, if nodes were searched for by mDNS.
    pub(super) browsed: Option<Vec<(IpAddr, IpAddr)>>,
}

impl Evidence {
    /// Returns a setting of a node; none if it does not tell.
    pub(super) fn setting(&self, node: &NodeView, name: &str) -> Option<&Json> {
        self.configs.get(node.id())?.get(name)
    }

    /// Returns whether an address is on a network of this host.
    pub(super) fn is_near(&self, address: SocketAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => (4, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (6, u128::from(ip)),
        };
        let (family, wanted) = bits(address.ip());
        self.browsed.iter().flatten().any(|(ip, mask)| {
            let ((own, ip), (_, mask)) = (bits(*ip), bits(*mask));
            own == family && ip & mask == wanted & mask
        })
    }
}

/// What a node said to further questions.
struct Further {
    id: String,
    config: Option<Json>,
    refuses_frames: bool,
}

/// Asks all nodes twice, and dials each.
pub(super) async fn collect(context: &Context, watch: Duration) -> Result<Evidence, Failure> {
    let (before, survey) = survey::twice(context, watch).await?;
    let mut questions = Questions::new();
    for node in &survey.nodes {
        let (hello, id, address) = (hello(context.cluster()), node.id().to_owned(), node.address);
        let config = context.document(address, "/v1/config".to_owned());
        let (timeout, security) = (context.global.timeout, context.security.clone());
        questions.ask(async move {
            // Some nodes do not show it, or are of a release without it.
            let config = config.await.ok();
            // A node that does not answer any more is found by another check.
            let refused = refuses_frames(address, hello, timeout, &security).await;
            Further { id, config, refuses_frames: refused.is_ok_and(|refused| refused) }
        });
    }
    let (mut configs, mut http_only) = (BTreeMap::new(), BTreeSet::new());
    while let Some(Further { id, config, refuses_frames }) = questions.next().await {
        http_only.extend(refuses_frames.then(|| id.clone()));
        configs.extend(config.map(|config| (id, config)));
    }
    let browses = context.discovery.mdns.is_some() && context.global.node.is_none();
    Ok(Evidence {
        survey,
        before,
        configs,
        http_only,
        region: context.global.variable("ZEROCACHE_REGION"),
        days: certificate_days(&context.credentials),
        browsed: browses.then(networks),
    })
}

/// Returns the networks of this host.
fn networks() -> Vec<(IpAddr, IpAddr)> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let network = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(of) => (of.ip.into(), of.netmask.into()),
        if_addrs::IfAddr::V6(of) => (of.ip.into(), of.netmask.into()),
    };
    interfaces.into_iter().map(network).collect()
}

/// The introduction of a client.
pub(in crate::commands) fn hello(cluster: &str) -> RequestMessage {
    let hello = Hello::of_client(cluster, "tool", clock::now().wall_ms);
    let envelope = Envelope { cluster: cluster_id(cluster), ..Envelope::default() };
    RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
}
