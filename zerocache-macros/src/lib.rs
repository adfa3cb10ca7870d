//! zerocache-macros
