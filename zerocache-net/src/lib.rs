//! zerocache-net
