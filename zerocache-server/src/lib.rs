//! A zerocache node, as a library to embed and as the binary `zerocache-server`.
//!
//! - [`config`]: flags, variables, defaults, and their validation.

pub mod config;
