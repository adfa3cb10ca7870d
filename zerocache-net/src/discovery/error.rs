//! Errors of a configuration or an announcement.

use thiserror::Error;
use zerocache_core::name::InvalidName;

use super::NAMES_MAX;

/// An invalid configuration or announcement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// A cluster or region that cannot be announced.
    #[error("{what}: {source}")]
    BadName {
        /// Which of them: `cluster` or `region`.
        what: &'static str,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// More names than are looked up.
    #[error("{given} {what}: at most {NAMES_MAX} are allowed")]
    TooManyNames {
        /// Which list: `DNS names` or `seeds`.
        what: &'static str,
        /// How many were given.
        given: usize,
    },
    /// An announcement without a port.
    #[error("port 0 cannot be announced: announce the port that is bound")]
    NoPort,
    /// mDNS is configured, and this build has none.
    #[error("this build has no mDNS (feature mdns)")]
    MdnsNotBuilt,
    /// The mDNS daemon refused.
    #[error("mDNS: {0}")]
    Mdns(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Checks that `name` can be announced as a cluster or region.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), DiscoveryError> {
    zerocache_core::name::check(name).map_err(|source| DiscoveryError::BadName { what, source })
}

#[cfg(feature = "mdns")]
impl From<mdns_sd::Error> for DiscoveryError {
    fn from(error: mdns_sd::Error) -> Self {
        Self::Mdns(Box::new(error))
    }
}
