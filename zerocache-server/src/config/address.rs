//! The announced address of a node that has none configured.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Parses a port: decimal digits only.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns the address to announce after `before`: that one as long as the machine has it, so that a
/// further interface changes nothing, and also while the machine has no address that others may reach.
pub(super) fn current_machine_address(before: IpAddr) -> IpAddr {
    next_address(before, &listed_addresses(), machine_address)
}

fn next_address(before: IpAddr, listed: &[IpAddr], chosen: impl FnOnce() -> IpAddr) -> IpAddr {
    if is_reachable(&before) && listed.contains(&before) {
        return before;
    }
    Some(chosen()).filter(is_reachable).unwrap_or(before)
}

fn listed_addresses() -> Vec<IpAddr> {
    let listed = if_addrs::get_if_addrs().unwrap_or_default();
    listed.iter().filter(|i| i.is_oper_up()).map(if_addrs::Interface::ip).collect()
}

/// Returns the address to announce when none is configured: the one of the default route, else the
/// first that other machines may reach, IPv4 before IPv6, else 127.0.0.1.
pub(super) fn machine_address() -> IpAddr {
    choose(routed_address(), listed_addresses().into_iter())
}

fn choose(routed: Option<IpAddr>, listed: impl Iterator<Item = IpAddr>) -> IpAddr {
    let mut usable: Vec<IpAddr> = routed.into_iter().chain(listed).filter(is_reachable).collect();
    // The sort is stable: the routed address stays before the listed ones of its family.
    usable.sort_by_key(IpAddr::is_ipv6);
    usable.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Returns whether other machines may reach this address: not loopback, link-local or unspecified.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// Asks the kernel for the source address of the default route. Connecting a UDP socket sends nothing;
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
    fn routed_address_comes_first_and_ipv4_before_ipv6() {
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let listed =
            || ["127.0.0.1", "fe80::1", "fd00::2", "169.254.1.1", "10.0.0.7"].map(ip).into_iter();
        assert_eq!(choose(None, listed()), ip("10.0.0.7"));
        assert_eq!(choose(Some(ip("192.168.1.4")), listed()), ip("192.168.1.4"));
        assert_eq!(choose(None, ["::1", "fd00::2"].map(ip).into_iter()), ip("fd00::2"));
        assert_eq!(choose(Some(ip("127.0.0.1")), std::iter::empty()), ip("127.0.0.1"));
    }

    #[test]
    fn address_is_kept_while_the_machine_has_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let (before, other, loopback) = (ip("10.0.0.7"), ip("10.1.0.7"), ip("127.0.0.1"));
        assert_eq!(next_address(before, &[loopback, other, before], || other), before);
        assert_eq!(next_address(before, &[loopback, other], || other), other);
        // A cable is unplugged for a while.
        assert_eq!(next_address(before, &[loopback], || loopback), before);
        assert_eq!(next_address(loopback, &[loopback, other], || other), other);
    }
}
