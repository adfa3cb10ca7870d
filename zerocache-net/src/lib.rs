//! What both sides of a zerocache wire share: the clock of a process, discovery, which only
//! proposes addresses, and the transport, which only moves messages.

pub mod clock;
pub mod discovery;
pub mod transport;
