//! What both sides of a zerocache wire share: the clock of a process, discovery, which only
//! proposes addresses, the transport, which only moves messages, framed connections, and
//! how sizes and times are written in settings.

pub mod clock;
pub mod discovery;
pub mod framed;
pub mod transport;
pub mod units;
