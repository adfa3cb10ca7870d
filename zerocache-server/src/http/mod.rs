//! Accepting connections, and what a slow, broken or greedy client cannot do to the node.
//!
//! [`serve`] drives an axum router on every accepted connection. Each thing that a client can make
//! the node hold has a bound in [`HttpLimits`], and each refusal is counted in [`ServerCounters`](crate::telemetry::ServerCounters):
//!
//! - connections: a cap, above which a client gets 503 and is closed;
//! - heads: a time, a size and a count of headers, and no framing that two parsers could read
//!   differently (two `Content-Length`s, or one beside `Transfer-Encoding`);
//! - bodies: handlers read them with [`read_body`], which bounds size, time, rate, and the memory of
//!   all bodies together;
//! - responses: a client that stops reading is cut off;
//! - suspensions: requests queued in sockets while the process was suspended are refused;
//! - the end: [`serve`] closes idle connections, waits for the others, and cuts the rest.

mod accept;
mod bind;
mod body;
mod fd_limit;
mod guard;
mod head_validator;
mod io;
mod limits;
mod suspension;
mod upgrade;

pub use accept::{Served, serve};
pub use bind::{BindError, bind};
pub use body::{BodyError, BodyGate, read_body};
pub use fd_limit::fit_connections;
pub use guard::{Service, SyncHandler};
pub use limits::{BodyLimits, HttpLimits};
pub use upgrade::{Upgrade, upgraded};
