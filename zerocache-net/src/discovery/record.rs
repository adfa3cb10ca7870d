//! mDNS records: the content that a node announces, and the validation of received ones.
//!
//! Everything that comes from the network is validated here, by pure functions.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceInfo};

use super::{ADDRESSES_PER_RECORD_MAX, Announcement, Proposal, PythonRecord, Source};

/// The type of our own records.
pub(super) const TYPE_NATIVE: &str = "_zerocache._tcp.local.";

/// The type that the Python package zerocache 0.0.2 browses. Longer than RFC 6763 allows, see
/// [`TYPE_LEN_MAX`].
pub(super) const TYPE_PYTHON: &str = "_server._geocache._tcp.local.";

/// What mdns-sd must be told to allow before it announces [`TYPE_PYTHON`]; its own maximum.
pub(super) const TYPE_LEN_MAX: u8 = 30;

/// Version of the layout of our TXT fields. Readers ignore it and all fields unknown to them.
const LAYOUT: &str = "1";

/// The reason why a record is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    OtherCluster,
    NoCluster,
    NoRegion,
    NoPort,
    NoAddress,
}

fn is_name(name: &str) -> bool {
    zerocache_core::name::check(name).is_ok()
}

/// Validates a resolved record for a member or client of `cluster`.
///
/// Cluster, region, port and one usable address are required; a missing or unreadable incarnation
/// is tolerated, and so is every other field.
pub(super) fn proposal(service: &ResolvedService, cluster: &str) -> Result<Proposal, Reject> {
    let text = |key| std::str::from_utf8(service.get_property_val(key)??).ok();
    match text("cluster") {
        None => return Err(Reject::NoCluster),
        Some(other) if other != cluster => return Err(Reject::OtherCluster),
        Some(_) => {}
    }
    let region = text("region").filter(|region| is_name(region)).ok_or(Reject::NoRegion)?;
    if service.port == 0 {
        return Err(Reject::NoPort);
    }
    let addresses = addresses(service);
    if addresses.is_empty() {
        return Err(Reject::NoAddress);
    }
    Ok(Proposal {
        addresses,
        source: Source::Mdns,
        region: Some(region.to_owned()),
        incarnation: text("incarnation").and_then(incarnation),
    })
}

/// Reads 1 to 16 hexadecimal digits.
fn incarnation(text: &str) -> Option<u64> {
    // `from_str_radix` takes a leading plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The addresses that can be dialled: IPv4, then IPv6, then link-local; each group in order.
fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let mut ranked: Vec<(u8, SocketAddr)> = service
        .addresses
        .iter()
        .filter(|scoped| {
            let address = scoped.to_ip_addr();
            let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
            !address.is_unspecified() && !address.is_multicast() && !broadcast
        })
        .filter_map(|scoped| match scoped {
            ScopedIp::V6(scoped) if scoped.addr().is_unicast_link_local() => {
                let scope = scoped.scope_id().index;
                let address = SocketAddrV6::new(*scoped.addr(), service.port, 0, scope);
                // Without its interface such an address leads nowhere.
                (scope != 0).then_some((3, SocketAddr::V6(address)))
            }
            other => Some(match other.to_ip_addr() {
                IpAddr::V4(address) if !address.is_link_local() => {
                    (0, SocketAddr::from((address, service.port)))
                }
                IpAddr::V4(address) => (2, SocketAddr::from((address, service.port))),
                IpAddr::V6(address) => (1, SocketAddr::from((address, service.port))),
            }),
        })
        .collect();
    ranked.sort_unstable();
    ranked.truncate(ADDRESSES_PER_RECORD_MAX);
    ranked.into_iter().map(|(_, address)| address).collect()
}

/// Our own record. The incarnation names it and its host, so that nobody else has these names and
/// they need no probing, which would take a second.
pub(super) fn native(
    cluster: &str,
    announcement: &Announcement,
) -> Result<ServiceInfo, mdns_sd::Error> {
    let incarnation = format!("{:016x}", announcement.incarnation);
    let fields = [
        ("cluster", cluster),
        ("region", &announcement.region),
        ("incarnation", &incarnation),
        ("version", LAYOUT),
    ];
    let host = format!("zerocache-{incarnation}.local.");
    let addresses = &announcement.addresses[..];
    let port = announcement.port;
    let service = ServiceInfo::new(TYPE_NATIVE, &incarnation, &host, addresses, port, &fields[..])?;
    Ok(finish(service, addresses))
}

/// The record that the Python package understands: the region alone, and IPv4 addresses under a
/// host name of their own. `None` when there shall be none, or no given address is IPv4.
pub(super) fn python(announcement: &Announcement) -> Result<Option<ServiceInfo>, mdns_sd::Error> {
    let (addresses, port): (Vec<IpAddr>, u16) = match announcement.python {
        PythonRecord::None => return Ok(None),
        PythonRecord::OfNode => {
            let addresses = announcement.addresses.iter().copied();
            (addresses.filter(IpAddr::is_ipv4).collect(), announcement.port)
        }
        PythonRecord::Loopback(address) => (vec![(*address.ip()).into()], address.port()),
    };
    let is_local = matches!(announcement.python, PythonRecord::Loopback(_));
    if addresses.is_empty() && !announcement.addresses.is_empty() {
        return Ok(None);
    }
    let incarnation = format!("{:016x}", announcement.incarnation);
    let fields = [("region", announcement.region.as_str())];
    let host = format!("zerocache-py-{incarnation}.local.");
    let mut service =
        ServiceInfo::new(TYPE_PYTHON, &incarnation, &host, &addresses[..], port, &fields[..])?;
    if is_local {
        service.set_interfaces(vec![IfKind::LoopbackV4]);
    } else if addresses.is_empty() {
        service.set_interfaces(vec![IfKind::IPv4]);
    }
    Ok(Some(finish(service, &addresses)))
}

fn finish(mut service: ServiceInfo, addresses: &[IpAddr]) -> ServiceInfo {
    service.set_requires_probe(false);
    if addresses.is_empty() { service.enable_addr_auto() } else { service }
}

#[cfg(test)]
mod tests;
