//! Helpers of the process tests.
//!
//! - [`setup`], [`node`], [`cluster`]: one real server process; several that know each other.
//! - [`http`], [`frames`]: hand-written HTTP requests and framed connections, valid or not;
//!   [`transport`]: messages over either of them; [`messages`]: common requests.
//! - [`metrics`]: the text that Prometheus reads, and `promtool`.
//! - [`security`]: secrets and tokens; [`stream`]: plain and encrypted connections.
//! - [`operator`]: the tool `zerocache` on the command line.
//! - [`proxy`]: a TCP proxy between a caller and a node.
//! - [`poll`]: waiting for a condition.
//! - [`namespace`]: tests with a network of their own; [`net`]: a network of several regions, each
//!   node in a namespace of its own, with links that can be cut; [`probes`]: bulk reads and writes.
//! - [`reliability`]: the measurements behind `docs/reliability.md`; [`random`]: seeded choices.

pub mod cluster;
pub mod frames;
pub mod http;
pub mod messages;
pub mod metrics;
pub mod namespace;
pub mod net;
pub mod node;
pub mod operator;
pub mod poll;
pub mod probes;
pub mod proxy;
pub mod random;
pub mod reliability;
pub mod security;
pub mod setup;
pub mod stream;
pub mod transport;
