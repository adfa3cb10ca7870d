//! Addresses: what is written in the configuration, and the default for this machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::str::FromStr;

/// A host name or IP address with a port, not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A DNS name or an IP address; an IPv6 address without brackets.
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    /// Reads `HOST:PORT`; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        let mistake =
            || format!("\"{text}\" is not an address; use HOST:PORT, for example 10.0.0.5:6789");
        let (host, port) = text.rsplit_once(':').ok_or_else(mistake)?;
        let port: u16 = parse_port(port).filter(|p| *p != 0).ok_or_else(mistake)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(v6)) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            None if is_host(host) => host,
            _ => return Err(mistake()),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Where mDNS is spoken, when not on every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MdnsInterface {
    /// The interface of this name, such as `lo` or `eth0`.
    Name(String),
    /// The interface that carries this address.
    Address(IpAddr),
}

impl FromStr for MdnsInterface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        // 15 bytes is the kernel's limit for an interface name.
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if plain && (1..=15).contains(&text.len()) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!(
            "\"{text}\" is not an interface; use its name (lo, eth0) or its IP address"
        ))
    }
}

/// Reads a port: decimal digits only.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn is_host(host: &str) -> bool {
    let plain = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain && (1..=253).contains(&host.len()) && !host.starts_with(['-', '.'])
}

/// The address that this machine announces when none is configured: the one that its default route
/// uses, else the first that other machines may reach, IPv4 before IPv6, else 127.0.0.1.
pub(super) fn machine_address() -> IpAddr {
    let routed = routed_address();
    let listed = if_addrs::get_if_addrs().unwrap_or_default();
    choose(
        routed,
        listed
            .iter()
            .filter(|i| i.is_oper_up())
            .map(if_addrs::Interface::ip),
    )
}

fn choose(routed: Option<IpAddr>, listed: impl Iterator<Item = IpAddr>) -> IpAddr {
    let mut usable: Vec<IpAddr> = routed
        .into_iter()
        .chain(listed)
        .filter(is_reachable)
        .collect();
    // Stable: the routed address stays before the listed ones of its family.
    usable.sort_by_key(IpAddr::is_ipv6);
    usable
        .first()
        .copied()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
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
    fn host_ports() {
        for (text, host) in [
            ("a.example:1", "a.example"),
            ("[::1]:65535", "::1"),
            ("10.0.0.1:6789", "10.0.0.1"),
        ] {
            let parsed: HostPort = text.parse().expect(text);
            assert_eq!(parsed.host, host);
            assert_eq!(parsed.to_string(), text);
        }
        for bad in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "::1:6789",
            "[::1]",
            "[a]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces() {
        assert_eq!("lo".parse(), Ok(MdnsInterface::Name("lo".into())));
        assert_eq!(
            "127.0.0.1".parse(),
            Ok(MdnsInterface::Address(Ipv4Addr::LOCALHOST.into()))
        );
        for bad in ["", "a b", "a-name-that-is-too-long"] {
            assert!(bad.parse::<MdnsInterface>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_chosen_address() {
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let listed = || {
            ["127.0.0.1", "fe80::1", "fd00::2", "169.254.1.1", "10.0.0.7"]
                .map(ip)
                .into_iter()
        };
        assert_eq!(choose(None, listed()), ip("10.0.0.7"));
        assert_eq!(choose(Some(ip("192.168.1.4")), listed()), ip("192.168.1.4"));
        assert_eq!(
            choose(None, ["::1", "fd00::2"].map(ip).into_iter()),
            ip("fd00::2")
        );
        assert_eq!(
            choose(Some(ip("127.0.0.1")), std::iter::empty()),
            ip("127.0.0.1")
        );
    }
}
