//! Configuration of a node: settings, defaults and validation.
//!
//! [`ServerConfig`] is the validated form, for embedding and for the binary. The binary reads it from
//! flags and `ZEROCACHE_*` variables through [`Invocation`]. Every flag has a variable, its
//! name in capitals: `--max-bytes` is `ZEROCACHE_MAX_BYTES`. A flag wins over its variable, and a
//! variable that is set but empty counts as not set.

mod address;
mod args;
mod disk;
mod invocation;
mod memory_limit;
mod security;
mod server;
mod values;

pub use crate::hot_keys::HotKeyMode;
pub use args::Args;
pub use disk::{DISK_VALUE_BYTES_DEFAULT, DiskAdmission, DiskConfig};
pub use invocation::{EarlyExit, Invocation, command};
pub(crate) use security::COMPAT_NEEDS_LISTENER;
pub use server::{
    CLUSTER_DEFAULT, CONNECTIONS_MAX_DEFAULT, ConfigError, DRAIN_DEFAULT, KEY_BYTES_DEFAULT,
    PORT_DEFAULT, ServerConfig, VALUE_BYTES_DEFAULT, WARM_MAX_DEFAULT,
};
pub use values::{Compat, LogConfig, LogFilter, LogFormat, PageMode};
pub use zerocache_core::store::EvictionPolicy;
pub use zerocache_net::{
    discovery::{DiscoverySet, HostPort, Interface},
    security::{Source, TlsFiles, TlsMode},
};
