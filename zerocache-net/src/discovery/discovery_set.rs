//! The set of discovery sources in use.

/// The set of discovery sources in use.
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
    /// Every source that this build has.
    pub const ALL: Self = Self { mdns: cfg!(feature = "mdns"), dns: true, seeds: true };
    /// Seeds alone: for tests, and where neither multicast nor DNS is to be used.
    pub const SEEDS: Self = Self { seeds: true, ..Self::NONE };
    /// No source: others find the node only if they are given its address.
    pub const NONE: Self = Self { mdns: false, dns: false, seeds: false };

    /// Parses a list of names: `mdns`, `dns`, `seeds`, or `none` alone.
    ///
    /// # Errors
    /// A message about an unknown name, about `mdns` in a build without it, or about `none` among others.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        let mut set = Self::NONE;
        for name in names.iter().map(AsRef::as_ref) {
            match name {
                "mdns" if cfg!(feature = "mdns") => set.mdns = true,
                "mdns" => return Err("this build has no mDNS (feature mdns)".to_owned()),
                "dns" => set.dns = true,
                "seeds" => set.seeds = true,
                "none" if names.len() == 1 => {}
                "none" => return Err("none cannot be combined with other sources".to_owned()),
                _ => {
                    return Err(format!(
                        "\"{name}\" is not a discovery source; use mdns, dns, seeds, or none"
                    ));
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_combined() {
        let set = DiscoverySet::from_names(&["dns", "seeds"]);
        assert_eq!(set, Ok(DiscoverySet { mdns: false, dns: true, seeds: true }));
        assert_eq!(DiscoverySet::from_names(&["none"]), Ok(DiscoverySet::NONE));
        assert!(DiscoverySet::from_names(&["none", "dns"]).is_err());
        assert!(DiscoverySet::from_names(&["multicast"]).is_err());
    }
}
