//! Accepts connections and bounds what a slow, broken or greedy client can cost the node.
//!
//! [`serve`] drives an axum router on every accepted connection. Everything that a client can make the
//! node hold has a bound in [`HttpLimits`], and each refusal is counted in
//! [`ServerCounters`](crate::telemetry::ServerCounters):
//!
//! - connections: a cap; a client above it gets 503 and is closed;
//! - TLS handshakes: a deadline, and how many compute at a time;
//! - heads: a deadline, a size, a number of headers, and no framing that two parsers could read
//!   differently (two `Content-Length`s, or one beside `Transfer-Encoding`);
//! - browsers: a web page reaches the node only under a name that nobody else can own, or an allowed one;
//! - bodies: handlers read them with [`read_body`], which bounds size, time, rate, and the memory of
//!   all bodies together;
//! - responses: a client that stops reading is disconnected;
//! - suspensions: requests queued in sockets while the process was suspended are refused;
//! - shutdown: [`serve`] closes idle connections, waits for the others, and closes the rest by force.

mod accept;
mod bind;
mod body;
pub(crate) mod browser;
mod fd_limit;
mod guard;
mod handshake_permits;
mod head_validator;
mod io;
mod limits;
mod opening;
mod refusal;
mod suspension;
mod upgrade;

pub use accept::{Entrance, ShutdownSummary, serve};
pub use bind::{BindError, bind};
pub use body::{BodyBudget, BodyError, read_body};
pub use fd_limit::fit_connections;
pub use guard::{Service, SyncHandler};
pub use limits::{BodyLimits, HttpLimits};
pub use suspension::count as suspensions;
pub use upgrade::{Upgrade, upgraded};
