//! zerocache-net

pub mod discovery;
