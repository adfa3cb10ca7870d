//! zerocache-client
