//! Tasks that run beside the driver, and warnings at the start.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use zerocache_core::{node::Input, version::Incarnation, wire::NodeState};
use zerocache_net::discovery::{self, Announcement, Discovery};

use crate::{access::AccessControl, config::ServerConfig, driver::NodeDriver};

/// The interval at which the machine's address is checked, if none is configured.
const ADDRESS_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Passes the events of discovery to the node.
pub(super) async fn forward_discovery(
    mut events: mpsc::Receiver<discovery::Event>,
    driver: Arc<NodeDriver>,
) {
    while let Some(event) = events.recv().await {
        driver.input(match event {
            discovery::Event::Proposed(proposal) => Input::AddressesProposed {
                are_configured: proposal.source != discovery::Source::Mdns,
                addresses: proposal.addresses,
            },
            discovery::Event::Withdrawn(proposal) => match proposal.incarnation {
                Some(id) => Input::NodeWithdrawn(Incarnation(id)),
                None => continue,
            },
            discovery::Event::Complete => Input::DiscoveryComplete,
        });
    }
}

/// Announces the machine's new address when it changes. Ends only when dropped.
pub(super) async fn follow_machine_address(
    config: ServerConfig,
    mut announcement: Announcement,
    driver: Arc<NodeDriver>,
    discovery: Arc<Discovery>,
) {
    loop {
        tokio::time::sleep(ADDRESS_CHECK_EVERY).await;
        let changed = announcement.addresses.first().and_then(|ip| config.changed_addresses(*ip));
        let Some(ips) = changed.filter(|_| driver.state() != NodeState::Leaving) else { continue };
        let addresses: Vec<_> =
            ips.iter().map(|ip| SocketAddr::new(*ip, announcement.port)).collect();
        tracing::info!(before = ?announcement.addresses, now = ?ips, "machine address changed");
        announcement.addresses = ips;
        driver.input(Input::AddressesChanged(addresses));
        if let Err(error) = discovery.announce(&announcement) {
            tracing::warn!(%error, "cannot announce the changed address");
        }
    }
}

/// Creates the access control of a node, and logs what it protects.
pub(super) fn access_control(config: &ServerConfig) -> Arc<AccessControl> {
    let access = if config.insecure {
        tracing::warn!(
            "no authentication: whoever reaches the port of this node can read and delete everything"
        );
        AccessControl::insecure()
    } else {
        tracing::info!(
            "protected: callers of other hosts are refused; for nodes and clients on other hosts start it \
             with --insecure"
        );
        AccessControl::protected()
    };
    if config.compat.is_some() {
        tracing::warn!(
            "Python-compatible paths carry no cluster name: Python clients on this network use this \
             node, whatever their cluster"
        );
    }
    access
}
