//! Shared by the tests.
#![allow(dead_code, missing_docs, reason = "no test uses all of it")]

pub mod origin;
