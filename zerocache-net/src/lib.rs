//! What both sides of a zerocache wire share: the clock of a process, discovery, which only
//! proposes addresses, the transport, which only moves messages, and framed connections.

pub mod clock;
pub mod discovery;
pub mod framed;
pub mod transport;
