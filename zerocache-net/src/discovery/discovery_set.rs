//! Which ways of finding nodes are in use.

/// Which ways of finding nodes are in use.
///
/// `dns` and `seeds` do something only when names or seeds are configured.
///
/// ```
/// use zerocache_net::discovery::DiscoverySet;
///
/// assert_eq!(DiscoverySet::from_names(&["seeds"]), Ok(DiscoverySet::SEEDS));
/// assert!(!DiscoverySet::SEEDS.mdns && !DiscoverySet::SEEDS.dns);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoverySet {
    /// Announce and browse by multicast DNS on the local network.
    pub mdns: bool,
    /// Resolve the configured DNS names.
    pub dns: bool,
    /// Dial the configured seeds.
    pub seeds: bool,
}

impl DiscoverySet {
    /// Every way.
    pub const ALL: Self = Self { mdns: true, dns: true, seeds: true };
    /// Seeds alone: for tests, and where neither multicast nor DNS is to be used.
    pub const SEEDS: Self = Self { seeds: true, ..Self::NONE };
    /// No way: the node is found only by those that are told its address.
    pub const NONE: Self = Self { mdns: false, dns: false, seeds: false };

    /// The ways of a list of names: `mdns`, `dns`, `seeds`, or `none` alone.
    ///
    /// # Errors
    /// A sentence about the name that is not known, or about `none` among others.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        let mut ways = Self::NONE;
        for name in names.iter().map(AsRef::as_ref) {
            match name {
                "mdns" => ways.mdns = true,
                "dns" => ways.dns = true,
                "seeds" => ways.seeds = true,
                "none" if names.len() == 1 => {}
                "none" => return Err("none stands alone".to_owned()),
                _ => {
                    return Err(format!(
                        "\"{name}\" is not a way of discovery; use mdns, dns, seeds, or none"
                    ));
                }
            }
        }
        Ok(ways)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_added_up() {
        let ways = DiscoverySet::from_names(&["mdns", "seeds"]);
        assert_eq!(ways, Ok(DiscoverySet { mdns: true, dns: false, seeds: true }));
        assert_eq!(DiscoverySet::from_names(&["none"]), Ok(DiscoverySet::NONE));
        assert!(DiscoverySet::from_names(&["none", "dns"]).is_err());
        assert!(DiscoverySet::from_names(&["multicast"]).is_err());
    }
}
