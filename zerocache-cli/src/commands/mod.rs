//! The commands that talk to nodes.

pub(crate) mod check;
pub(crate) mod copies;
pub(crate) mod doctor;
pub(crate) mod entries;
pub(crate) mod generate;
mod hot_keys;
pub(crate) mod keys;
pub(crate) mod nodes;
mod one_node;
mod origins;
mod outcome;
pub(crate) mod purge;
pub(crate) mod service;
pub(crate) mod top;
pub(crate) mod watch;
