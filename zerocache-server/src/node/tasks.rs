//! Tasks that run beside the driver, and warnings at the start.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use zerocache_core::{access::Role, node::Input, version::Incarnation, wire::NodeState};
use zerocache_net::{
    discovery::{self, Announcement, Discovery},
    security::Security,
};

use super::RunError;
use crate::{
    access::{AccessControl, Level},
    config::{COMPAT_NEEDS_LISTENER, ConfigError, ServerConfig},
    driver::{NodeDriver, Severity},
};

/// The interval of warnings that encryption is optional.
const WARN_OF_OPTIONAL_TLS_EVERY: Duration = Duration::from_secs(3600);

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
    security: Security,
) {
    loop {
        tokio::time::sleep(ADDRESS_CHECK_EVERY).await;
        let changed = announcement.addresses.first().and_then(|ip| config.changed_addresses(*ip));
        let Some(ips) = changed.filter(|_| driver.state() != NodeState::Leaving) else { continue };
        let addresses: Vec<_> =
            ips.iter().map(|ip| SocketAddr::new(*ip, announcement.port)).collect();
        tracing::info!(before = ?announcement.addresses, now = ?ips, "machine address changed");
        security.set_addresses(&ips);
        announcement.addresses = ips;
        driver.input(Input::AddressesChanged(addresses));
        if let Err(error) = discovery.announce(&announcement) {
            tracing::warn!(%error, "cannot announce the changed address");
        }
    }
}

/// Records each change of credentials among the events of the node. Ends when the access control does.
pub(super) async fn record_changes(mut changes: watch::Receiver<u64>, driver: Arc<NodeDriver>) {
    while changes.changed().await.is_ok() {
        let text = "credentials or access file replaced";
        driver.recent_events().record(Severity::Info, text);
    }
}

/// Creates the access control of a node, and logs what it protects.
pub(super) fn access_control(
    config: &ServerConfig,
    security: Security,
) -> Result<Arc<AccessControl>, RunError> {
    let level = config.level();
    let access = match level {
        Level::Protected => AccessControl::protected(),
        Level::Insecure => AccessControl::insecure(),
        Level::Secret | Level::Certificates => {
            let file = config.access.clone();
            AccessControl::with_credentials(level, &config.cluster, security, file)?
        }
    };
    let may_write = access.anonymous().role().includes(Role::Write);
    if config.needs_anonymous_writers() && !may_write {
        return Err(ConfigError::new("compat", COMPAT_NEEDS_LISTENER.to_owned()).into());
    }
    log_level(level);
    if config.compat.is_some() && config.compat_listen.is_none() {
        tracing::warn!(
            "Python-compatible paths carry no cluster name: Python clients on this network use this \
             node, whatever their cluster"
        );
    }
    Ok(access)
}

fn log_level(level: Level) {
    match level {
        Level::Protected => tracing::info!(
            "protected: callers of other hosts are refused; to serve them, give all nodes the same \
             ZEROCACHE_SECRET and clients a token, or start the nodes with --insecure"
        ),
        Level::Insecure => tracing::warn!(
            "no authentication: whoever reaches the port of this node can read and delete everything"
        ),
        Level::Secret => tracing::info!(
            "secret: nodes and clients prove who they are; give further nodes the same secret, and clients a \
             token of `zerocache token create`"
        ),
        Level::Certificates => tracing::info!(
            "certificates: nodes and clients prove who they are; the access file says which roles clients have"
        ),
    }
}

/// Warns again and again that a mode for the time of a change protects nothing. Ends only when dropped.
pub(super) async fn warn_of_optional_tls() {
    loop {
        tracing::warn!(
            "encryption is optional: callers without TLS can read and delete everything; set --tls required \
             when all nodes and clients encrypt"
        );
        tokio::time::sleep(WARN_OF_OPTIONAL_TLS_EVERY).await;
    }
}
