//! The functions behind the fuzz targets: one function per target, which panics when an invariant
//! is violated.
//!
//! The targets in `fuzz/fuzz_targets` call these functions under libFuzzer; `tests/corpus.rs` calls
//! them with every file of `fuzz/corpus/TARGET`, so that a finding stays fixed wherever the tests
//! run. To add a target: a function here, its line in [`TARGETS`], a file in `fuzz_targets`, a
//! `[[bin]]` in `fuzz/Cargo.toml`, and a corpus.

mod access;
mod frames;
mod headers;
mod image_query;
mod node;
mod record;
mod url;
mod value;
mod wire;

pub use access::{access_file, token};
pub use frames::{frame_reader, frame_writer};
pub use headers::headers;
pub use image_query::image_query;
pub use node::node;
pub use record::record;
pub use url::url;
pub use value::value;
pub use wire::{request, response};

/// A target: its name, which its corpus folder has too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 12] = [
    ("request", request),
    ("response", response),
    ("node", node),
    ("url", url),
    ("headers", headers),
    ("record", record),
    ("value", value),
    ("frame_reader", frame_reader),
    ("frame_writer", frame_writer),
    ("access_file", access_file),
    ("token", token),
    ("image_query", image_query),
];
