//! Which interface mDNS uses.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::str::FromStr;

use mdns_sd::IfKind;

/// A network interface, by its name or by one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// By name, such as `lo` or `eth0`.
    Name(String),
    /// By address; any loopback address means the loopback interface.
    Address(IpAddr),
}

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

    /// Tells whether the interface is there now; it may come later.
    pub(super) fn is_present(&self) -> bool {
        match self {
            Self::Name(name) => {
                let interfaces = Path::new("/sys/class/net");
                !interfaces.is_dir() || interfaces.join(name).exists()
            }
            Self::Address(address) => UdpSocket::bind((*address, 0)).is_ok(),
        }
    }
}

impl FromStr for Interface {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.to_owned()),
        })
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
    fn is_read_as_an_address_or_else_a_name() {
        let read = |text: &str| text.parse::<Interface>().unwrap();
        assert_eq!(read("lo"), Interface::Name("lo".into()));
        assert_eq!(read("10.0.0.1"), Interface::Address([10, 0, 0, 1].into()));
        assert!(matches!(read("127.0.0.9").kind(), IfKind::LoopbackV4));
        assert!(matches!(read("::1").kind(), IfKind::LoopbackV6));
        assert!(read("127.0.0.1").is_present());
        // 192.0.2.0/24 is set aside for documentation; no interface has it.
        assert!(!read("192.0.2.1").is_present());
    }
}
