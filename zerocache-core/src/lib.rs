//! The rules of zerocache, without I/O: keys, versions, the TLRU store, the messages between nodes and
//! clients, membership, replication, and routing of client requests.
//!
//! All code is synchronous and deterministic. Time and randomness are passed in, so that a server and a
//! simulator drive the same code.
//!
//! This crate is internal to zerocache. Its interface may change in every release.
#![no_std]

extern crate alloc;

pub mod access;
pub mod call;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod compression;
pub mod condition;
pub mod entry;
pub mod hot_keys;
pub mod key;
pub mod limits;
pub mod locate;
pub mod metadata;
pub mod name;
pub mod node;
pub mod purge;
pub mod rendezvous;
pub mod route;
pub mod store;
pub mod time;
pub mod ttl;
pub mod version;
pub mod wire;
