//! The interface that mDNS uses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

#[cfg(feature = "mdns")]
use mdns_sd::IfKind;

/// A network interface, by its name or by one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// By name, such as `lo` or `eth0`.
    Name(String),
    /// By address; any loopback address means the loopback interface.
    Address(IpAddr),
}

#[cfg(feature = "mdns")]
impl Interface {
    pub(super) fn kind(&self) -> IfKind {
        match self {
            Self::Name(name) => IfKind::Name(name.clone()),
            // Only 127.0.0.1 is written on the interface, but nodes use all of 127.0.0.0/8.
            Self::Address(IpAddr::V4(address)) if address.is_loopback() => IfKind::LoopbackV4,
            Self::Address(IpAddr::V6(address)) if address.is_loopback() => IfKind::LoopbackV6,
            Self::Address(address) => IfKind::Addr(*address),
        }
    }

    /// Whether the interface exists, is up and has an address. It may appear later.
    pub(super) fn is_present(&self) -> bool {
        // Where the system does not list them, it is not known to be missing.
        let Ok(interfaces) = if_addrs::get_if_addrs() else { return true };
        interfaces.iter().filter(|interface| interface.is_oper_up()).any(|interface| match self {
            Self::Name(name) => interface.name == *name,
            Self::Address(address) if address.is_loopback() => interface.is_loopback(),
            Self::Address(address) => interface.ip() == *address,
        })
    }
}

/// A text that is neither an interface's name nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an interface; use its name (lo, eth0) or its IP address")]
pub struct InterfaceError(String);

impl FromStr for Interface {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        // 15 bytes is the kernel's limit for an interface name.
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if plain && (1..=15).contains(&text.len()) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(InterfaceError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_an_address_or_else_a_name() {
        let read = |text: &str| text.parse::<Interface>().unwrap();
        assert_eq!(read("lo"), Interface::Name("lo".into()));
        assert_eq!(read("10.0.0.1"), Interface::Address([10, 0, 0, 1].into()));
        for bad in ["", "a b", "a-name-that-is-too-long"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "mdns")]
    #[test]
    fn interface_is_found_if_it_exists() {
        let read = |text: &str| text.parse::<Interface>().unwrap();
        assert!(matches!(read("127.0.0.9").kind(), IfKind::LoopbackV4));
        assert!(matches!(read("::1").kind(), IfKind::LoopbackV6));
        assert!(read("127.0.0.1").is_present());
        // 192.0.2.0/24 is set aside for documentation; no interface has it.
        assert!(!read("192.0.2.1").is_present());
        assert!(!read("nope0").is_present());
    }
}
