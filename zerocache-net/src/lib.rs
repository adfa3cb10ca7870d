//! What both sides of a zerocache wire share: the clock of a process, what belongs to one process alone,
//! discovery, which only proposes addresses, the transport, which only moves messages, framed connections,
//! and how settings are named and written.

pub mod clock;
pub mod discovery;
pub mod env_vars;
pub mod process;
pub mod transport;
pub mod units;
