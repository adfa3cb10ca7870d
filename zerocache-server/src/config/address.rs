//! The address that a node announces when none is configured.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Reads a port: decimal digits only.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The address that this machine announces when none is configured: the one that its default route
/// uses, else the first that other machines may reach, IPv4 before IPv6, else 127.0.0.1.
pub(super) fn machine_address() -> IpAddr {
    let routed = routed_address();
    let listed = if_addrs::get_if_addrs().unwrap_or_default();
    choose(routed, listed.iter().filter(|i| i.is_oper_up()).map(if_addrs::Interface::ip))
}

fn choose(routed: Option<IpAddr>, listed: impl Iterator<Item = IpAddr>) -> IpAddr {
    let mut usable: Vec<IpAddr> = routed.into_iter().chain(listed).filter(is_reachable).collect();
    // Stable: the routed address stays before the listed ones of its family.
    usable.sort_by_key(IpAddr::is_ipv6);
    usable.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether other machines may reach this address: not loopback, link-local or unspecified.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// Asks the kernel which address it would send from. Connecting a datagram socket sends nothing;
/// the target is a documentation address (RFC 5737).
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_address() {
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let listed =
            || ["127.0.0.1", "fe80::1", "fd00::2", "169.254.1.1", "10.0.0.7"].map(ip).into_iter();
        assert_eq!(choose(None, listed()), ip("10.0.0.7"));
        assert_eq!(choose(Some(ip("192.168.1.4")), listed()), ip("192.168.1.4"));
        assert_eq!(choose(None, ["::1", "fd00::2"].map(ip).into_iter()), ip("fd00::2"));
        assert_eq!(choose(Some(ip("127.0.0.1")), std::iter::empty()), ip("127.0.0.1"));
    }
}
