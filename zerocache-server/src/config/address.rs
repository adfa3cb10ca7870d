//! The address that a node announces when none is configured.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Reads a port: decimal digits only.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The address that this machine announces when none is configured and it announced `before` until now:
/// that one as long as the machine has it, so that a further interface changes nothing. While the
/// machine has none that others may reach, it stays too.
pub(super) fn machine_address_after(before: IpAddr) -> IpAddr {
    follow(before, &listed_addresses(), machine_address)
}

fn follow(before: IpAddr, listed: &[IpAddr], chosen: impl FnOnce() -> IpAddr) -> IpAddr {
    if is_reachable(&before) && listed.contains(&before) {
        return before;
    }
    Some(chosen()).filter(is_reachable).unwrap_or(before)
}

fn listed_addresses() -> Vec<IpAddr> {
    let listed = if_addrs::get_if_addrs().unwrap_or_default();
    listed.iter().filter(|i| i.is_oper_up()).map(if_addrs::Interface::ip).collect()
}

/// The address that this machine announces when none is configured: the one that its default route
/// uses, else the first that other machines may reach, IPv4 before IPv6, else 127.0.0.1.
pub(super) fn machine_address() -> IpAddr {
    choose(routed_address(), listed_addresses().into_iter())
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

    #[test]
    fn an_address_is_kept_as_long_as_the_machine_has_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let (before, other, loopback) = (ip("10.0.0.7"), ip("10.1.0.7"), ip("127.0.0.1"));
        assert_eq!(follow(before, &[loopback, other, before], || other), before);
        assert_eq!(follow(before, &[loopback, other], || other), other);
        // A cable that is pulled out for a while.
        assert_eq!(follow(before, &[loopback], || loopback), before);
        assert_eq!(follow(loopback, &[loopback, other], || other), other);
    }
}
