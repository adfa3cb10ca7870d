#![no_std]
//! zerocache-core
