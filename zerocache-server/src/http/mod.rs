//! Accepting connections, and what a slow, broken or greedy client cannot do to the node.
//!
//! [`serve`] drives an axum router on every accepted connection. Each thing that a client can make
//! the node hold has a bound in [`HttpLimits`], and each refusal is counted in [`HttpCounters`]:
//!
//! - connections: a cap, above which a client gets 503 and is closed;
//! - heads: a time, a size and a count of headers, and no framing that two parsers could read
//!   differently (two `Content-Length`s, or one beside `Transfer-Encoding`);
//! - bodies: handlers read them with [`read_body`], which bounds size, time, rate, and the memory of
//!   all bodies together;
//! - responses: a client that stops reading is cut off;
//! - pauses: what waited in sockets while the process stood still is refused;
//! - the end: [`serve`] closes idle connections, waits for the others, and cuts the rest.

mod accept;
mod bind;
mod body;
mod counters;
mod files;
mod guard;
mod heads;
mod io;
mod limits;
mod pause;
mod upgrade;

pub use accept::{Served, serve};
pub use bind::{BindError, bind};
pub use body::{BodyError, BodyGate, read_body};
pub use counters::{Counter, HttpCounters};
pub use files::fit_connections;
pub use guard::{AtOnce, Service};
pub use limits::{BodyLimits, HttpLimits};
pub use upgrade::{Upgrade, upgraded};
