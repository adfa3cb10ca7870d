//! The addresses to which the service connects: public ones, and networks that are allowed by name.
//!
//! An image proxy is asked to fetch URLs by strangers. If it connects to addresses inside, it lends them its
//! place in the network (server-side request forgery).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// IPv4 networks that are not the public internet: (first address, length of the prefix).
const NOT_PUBLIC_V4: [([u8; 4], u8); 16] = [
    ([0, 0, 0, 0], 8),        // this network
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // shared by carriers
    ([127, 0, 0, 0], 8),      // loopback
    ([169, 254, 0, 0], 16),   // link-local, and the metadata of clouds
    ([172, 16, 0, 0], 12),    // private
    ([192, 0, 0, 0], 24),     // protocol assignments
    ([192, 0, 2, 0], 24),     // documentation
    ([192, 88, 99, 0], 24),   // 6to4 relays
    ([192, 168, 0, 0], 16),   // private
    ([198, 18, 0, 0], 15),    // benchmarks
    ([198, 51, 100, 0], 24),  // documentation
    ([203, 0, 113, 0], 24),   // documentation
    ([224, 0, 0, 0], 4),      // multicast
    ([240, 0, 0, 0], 4),      // reserved, broadcast
    ([168, 63, 129, 16], 32), // the wire server of Azure: a public number that is inside
];

/// Parts of 2000::/3 that are not the public internet, or contain an IPv4 address that is not looked at.
const NOT_PUBLIC_V6: [([u16; 2], u8); 4] = [
    ([0x2001, 0x0000], 23), // protocol assignments, Teredo
    ([0x2001, 0x0db8], 32), // documentation
    ([0x2002, 0x0000], 16), // 6to4
    ([0x3fff, 0x0000], 20), // documentation
];

/// Whether an address belongs to the public internet.
///
/// Of IPv6 that is 2000::/3 without some parts. Loopback, unique local, link-local and multicast addresses,
/// NAT64 (64:ff9b::/96) and the unspecified address are outside of it.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|&(first, length)| {
            Network::new(Ipv4Addr::from(first).into(), length).contains(v4.into())
        }),
        IpAddr::V6(v6) => {
            let global = Network::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3);
            let excluded = NOT_PUBLIC_V6.iter().any(|&([a, b], length)| {
                Network::new(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).into(), length)
                    .contains(v6.into())
            });
            global.contains(v6.into()) && !excluded
        }
    }
}

/// A network: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

impl Network {
    const fn new(first: IpAddr, length: u8) -> Self {
        Self { first, length }
    }

    /// Whether an address is in the network. An IPv4 address that is written as IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network; write 10.0.0.0/8 or fd00::/8");
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let length: u8 = match length {
            "" if !text.contains('/') => most,
            digits => digits.parse().ok().filter(|length| *length <= most).ok_or_else(wrong)?,
        };
        // 96 bits before an IPv4 address that is written as IPv6.
        match (first.to_canonical(), length.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(length)) if first.is_ipv6() => Ok(Self::new(v4, length)),
            _ => Ok(Self::new(first, length)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.length)
    }
}

/// Whether the service may connect to an address.
#[must_use]
pub fn is_allowed(address: IpAddr, allowed: &[Network]) -> bool {
    is_public(address) || allowed.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let inside = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.2.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:53aa::1",
            "2001:db8::1",
            "100::1",
            "3fff::1",
            "4000::1",
        ];
        for text in inside {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        let outside = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.169.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
        ];
        for text in outside {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn allowed_network_is_an_exception() {
        let loopback: Network = "127.0.0.0/8".parse().expect("a network");
        let one: Network = "fd00::7".parse().expect("a network");
        let all: Network = "::/0".parse().expect("a network");
        let allowed = |text: &str, networks: &[Network]| {
            is_allowed(text.parse().expect("an address"), networks)
        };
        assert!(allowed("127.0.0.1", &[loopback]) && allowed("::ffff:127.1.2.3", &[loopback]));
        assert!(!allowed("10.0.0.1", &[loopback]) && !allowed("::1", &[loopback]));
        assert!(allowed("fd00::7", &[loopback, one]) && !allowed("fd00::8", &[loopback, one]));
        assert!(allowed("::1", &[all]) && !allowed("127.0.0.1", &[all]));
        let mapped: Network = "::ffff:10.0.0.0/104".parse().expect("a network");
        assert_eq!(mapped.to_string(), "10.0.0.0/8");
        assert!(allowed("10.1.2.3", &[mapped]) && !allowed("127.0.0.1", &[mapped]));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "localhost/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!(loopback.to_string(), "127.0.0.0/8");
    }
}
