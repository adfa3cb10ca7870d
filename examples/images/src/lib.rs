//! An image proxy and thumbnailer whose results are shared through zerocache.
//!
//! From a request to an image, without any I/O:
//!
//! - [`query`], [`variant`], [`steps`]: parameters, and what is made of an original.
//! - [`source`], [`addresses`]: the URLs and addresses that are fetched.
//! - [`signature`], [`negotiate`], [`failure`]: signed URLs, headers, reasons of errors.
//! - [`convert`]: decoding, scaling, encoding.
//!
//! With I/O:
//!
//! - [`fetch`]: an original, from an origin that may be an enemy.
//! - [`worker`]: originals and variants by `get_or_compute`, with leases and tags; [`capacity`], [`hosts`] and
//!   [`call`] bound them.
//! - [`gateway`]: a look-up in the cache, and a worker by [`placement`] on a miss; [`directory`] finds workers.
//! - [`api`], [`purge`], [`responses`], [`internal`], [`listener`]: HTTP. [`metrics`]: counters.
//! - [`settings`], [`service`], [`run`]: flags and variables; a process of the service.
//! - Demonstrations are in [`demo`].

pub mod addresses;
pub mod api;
mod bounded;
pub mod call;
pub mod capacity;
pub mod clock;
pub mod convert;
pub mod demo;
pub mod directory;
pub mod failure;
pub mod fetch;
pub mod gateway;
pub mod hosts;
pub mod internal;
pub mod listener;
pub mod metrics;
pub mod negotiate;
mod parts;
pub mod picture;
pub mod placement;
pub mod purge;
pub mod query;
pub mod responses;
pub mod run;
pub mod service;
pub mod settings;
pub mod signature;
pub mod source;
pub mod steps;
pub mod try_files;
pub mod variant;
pub mod worker;
