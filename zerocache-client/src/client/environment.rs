//! The region of this process, from `ZEROCACHE_REGION`, and the client of that region.

use std::{env::VarError, sync::OnceLock};

use zerocache_core::name;

use super::{
    ClientBuilder, ZerocacheClient,
    config::{Config, invalid, is_test},
    instances,
};
use crate::Error;

/// The variable that names the region.
const VARIABLE: &str = "ZEROCACHE_REGION";

/// The region of a process that uses no network, if the variable is not set: there it has no effect.
const REGION_OFFLINE: &str = "offline";

impl ZerocacheClient {
    /// The client of the region that `ZEROCACHE_REGION` names, as
    /// [`get_instance`](Self::get_instance) returns it. Memoized functions whose attribute names no region
    /// use it.
    ///
    /// It cannot fail: if the variable is not set, this is logged once at ERROR, every operation returns
    /// [`Error::Config`] with its name, and memoized functions compute. A process without a network
    /// (`ZEROCACHE_OFFLINE=true`, or a test) needs no region. The variable is read once.
    #[must_use]
    pub fn from_env() -> Self {
        match region() {
            Ok(region) => instances::get(region),
            Err(error) => without_region(error),
        }
    }

    /// Configures a client by the `ZEROCACHE_*` variables of this process, `ZEROCACHE_REGION` among them. With
    /// [`install`](ClientBuilder::install) it is the client that [`from_env`](Self::from_env) returns.
    ///
    /// ```no_run
    /// use zerocache_client::ZerocacheClient;
    ///
    /// let cache = ZerocacheClient::builder_from_env()?.near_bytes(256 << 20).install()?;
    /// # Ok::<_, zerocache_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if a variable has a value that is not allowed, or there is no region.
    pub fn builder_from_env() -> Result<ClientBuilder, Error> {
        let region = region().map_err(Error::clone)?;
        let is_chosen = is_set("ZEROCACHE_OFFLINE");
        Ok(ClientBuilder::from_config(Config::from_process(region, false)?, is_chosen))
    }
}

/// Returns the region that the environment names, or why there is none.
pub(crate) fn region() -> Result<&'static str, &'static Error> {
    static REGION: OnceLock<Result<String, Error>> = OnceLock::new();
    let region = REGION.get_or_init(|| named(std::env::var(VARIABLE), is_offline()));
    region.as_deref()
}

/// Returns the client of a process that does not say where it runs.
#[cold]
pub(crate) fn without_region(error: &Error) -> ZerocacheClient {
    static CLIENT: OnceLock<ZerocacheClient> = OnceLock::new();
    let make = || {
        tracing::error!(%error, "the client cannot work");
        ZerocacheClient::broken("", error.clone())
    };
    CLIENT.get_or_init(make).clone()
}

/// Returns the region of a variable's value; an empty one counts as not set.
fn named(value: Result<String, VarError>, is_offline: bool) -> Result<String, Error> {
    match value {
        Ok(region) if !region.is_empty() => {
            name::check_region(&region).map_err(|error| invalid(VARIABLE, &error))?;
            Ok(region)
        }
        Err(error @ VarError::NotUnicode(_)) => Err(invalid(VARIABLE, &error)),
        _ if is_offline => Ok(REGION_OFFLINE.to_owned()),
        _ => Err(invalid(
            VARIABLE,
            &"not set; set it to the region in which this process runs, or name the region in code",
        )),
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Returns true if clients that are made from variables use no network.
fn is_offline() -> bool {
    match std::env::var("ZEROCACHE_OFFLINE") {
        Ok(value) if !value.is_empty() => value == "true",
        _ => is_test(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_comes_from_its_variable_and_is_required_with_a_network_only() {
        let set = |value: &str| Ok(value.to_owned());
        let absent = || Err(VarError::NotPresent);
        assert_eq!(named(set("oslo"), false).unwrap(), "oslo");
        assert_eq!(named(set("oslo"), true).unwrap(), "oslo");
        assert_eq!(named(absent(), true).unwrap(), REGION_OFFLINE);
        for value in [absent(), set(""), set("os lo"), set("v1")] {
            let error = named(value, false).unwrap_err().to_string();
            assert!(error.contains("ZEROCACHE_REGION: "), "{error}");
        }
        assert!(named(set("os lo"), true).is_err(), "a wrong name is wrong offline, too");
    }
}
