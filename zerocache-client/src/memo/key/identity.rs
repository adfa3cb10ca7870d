//! The identity of a function: its normalized path, and what else distinguishes it from other functions.

#[cfg(test)]
pub(super) mod tests;

use xxhash_rust::xxh3::xxh3_128;

use super::path::Path;
use super::{HEAD, SCHEME, put_length};
use crate::memo::site::FunctionInfo;

/// The identity of a function with its type arguments and its version, in 128 bits. It is held as the head of the
/// function's keys for a client without a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct FunctionId([u8; HEAD]);

impl FunctionId {
    pub(super) fn new(id: u128) -> Self {
        let mut head = [0; HEAD];
        head[0] = SCHEME;
        // The length of the empty namespace.
        head[1] = 0;
        head[2..].copy_from_slice(&id.to_be_bytes());
        FunctionId(head)
    }

    /// Returns the head of the function's keys.
    #[inline]
    pub(super) fn head(&self) -> &[u8; HEAD] {
        &self.0
    }
}

/// An identity, and its origin.
pub(crate) struct Identity {
    /// The identity; an error if another function may have the same one in another process.
    pub(crate) id: Result<FunctionId, &'static str>,
    /// The path as the compiler writes it, apart from the changes of the attribute.
    pub(crate) path: String,
    /// True for the function that `call = …` adds.
    pub(crate) is_sibling: bool,
}

/// The kinds of identities, each with a byte of its own.
mod by {
    pub(super) const PATH: u8 = b'p';
    pub(super) const PLACE: u8 = b'l';
    pub(super) const NAME: u8 = b'n';
}

impl Identity {
    /// Derives the identity from the compiler's name of a closure in the function.
    pub(crate) fn new(type_name: &str, info: &FunctionInfo) -> Self {
        let (path, is_sibling) = Path::of_function(type_name, info.function);
        let id = match path.ambiguity() {
            Some(reason) => Err(reason),
            None => Ok(FunctionId::new(xxh3_128(&input(&path, info)))),
        };
        Identity { id, path: path.text(), is_sibling }
    }
}

fn input(path: &Path<'_>, info: &FunctionInfo) -> Vec<u8> {
    let mut input = Vec::new();
    let mut put = |part: &[u8]| {
        put_length(part.len() as u64, |byte| input.push(byte));
        input.extend_from_slice(part);
    };
    put(&info.version.to_be_bytes());
    if let Some(name) = info.name {
        put(&[by::NAME]);
        put(name.as_bytes());
        put(path.type_arguments().as_bytes());
        return input;
    }
    let is_local = path.is_local(info.module);
    put(&[if is_local { by::PLACE } else { by::PATH }]);
    // Several packages can have a crate of the same name, such as `server`.
    put(info.package.unwrap_or_default().as_bytes());
    put(path.normal().as_bytes());
    if is_local {
        put(&info.tokens.to_be_bytes());
        put(&info.line.to_be_bytes());
        put(&info.column.to_be_bytes());
    }
    input
}
