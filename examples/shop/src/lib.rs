//! A small shop: an axum API on SQLite whose expensive queries go through `#[zerocache]`.
//!
//! The code that a team would write:
//!
//! - [`queries`]: the queries, and the attribute on those that are expensive.
//! - [`api`]: the HTTP interface.
//! - [`service`]: one process of the service: a database, a client of the cache, a listener.
//! - [`database`], [`stock`]: the origin, and the rows in it.
//!
//! The demonstration, with several processes in two regions:
//!
//! - [`node`], [`processes`]: cache nodes and services as processes that end with their parent.
//! - [`deployment`]: all of them together.
//! - [`load`], [`updates`]: the requests of customers, and the updates of the shop.
//! - [`scenario`], [`report`]: cold, warm, a node's death, updates, no node at all; the measurements.

pub mod api;
pub mod clock;
pub mod database;
pub mod deployment;
pub mod load;
pub mod node;
pub mod processes;
pub mod queries;
pub mod report;
pub mod scenario;
pub mod service;
pub mod stock;
pub mod updates;
