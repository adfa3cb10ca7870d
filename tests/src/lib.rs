//! What the process tests share.

pub mod namespace;
