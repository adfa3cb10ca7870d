//! A zerocache node, as a library to embed and as the binary `zerocache-server`.
//!
//! - [`config`]: flags, variables, defaults, and their validation.
//! - [`http`]: accepting connections, and the limits of slow and broken clients.

pub mod config;
pub mod http;
