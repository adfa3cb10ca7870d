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

pub mod addresses;
pub mod clock;
pub mod convert;
pub mod failure;
pub mod fetch;
pub mod negotiate;
pub mod query;
pub mod signature;
pub mod source;
pub mod steps;
pub mod variant;
