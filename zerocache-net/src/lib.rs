//! The parts that zerocache clients and nodes share: clocks, values that belong to one process, discovery of
//! addresses, credentials, the transport of messages, and the parsing of settings.
//!
//! Internal to the zerocache crates: there is no promise of a stable interface.

pub mod clock;
pub mod discovery;
pub mod env_vars;
pub mod process;
pub mod security;
pub mod transport;
pub mod units;
