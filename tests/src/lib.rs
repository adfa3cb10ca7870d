//! Helpers of the process tests.
//!
//! - [`setup`] and [`node`]: one real server process; [`cluster`]: several that know each other.
//! - [`http`]: requests as curl sends them, and such as it would never send; [`frames`]: a framed
//!   connection by hand; [`transport`]: either of them, for a message; [`messages`]: what is in such.
//! - [`proxy`]: what may stand between a caller and a node.
//! - [`poll`]: waiting for a condition.
//! - [`namespace`]: tests that need a network of their own; [`net`]: one of several regions, each
//!   node in a namespace of its own, with links that can be cut; [`probes`]: what every node holds,
//!   many keys at once.
//! - [`reliability`]: the measurements behind `docs/reliability.md`; [`random`]: their choices.

pub mod cluster;
pub mod frames;
pub mod http;
pub mod messages;
pub mod namespace;
pub mod net;
pub mod node;
pub mod poll;
pub mod probes;
pub mod proxy;
pub mod random;
pub mod reliability;
pub mod setup;
pub mod transport;
