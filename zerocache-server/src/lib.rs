//! zerocache-server
