//! Who a function is: its path, made independent of what may change without meaning, and what else tells
//! it from others.

#[cfg(test)]
pub(super) mod tests;

use xxhash_rust::xxh3::xxh3_128;

use super::path::Path;
use super::{HEAD, SCHEME, put_length};
use crate::memo::site::Origin;

/// 128 bits that stand for one function with its type arguments and its version; as what all its keys
/// begin with, for a client without namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct FunctionId([u8; HEAD]);

impl FunctionId {
    pub(super) fn new(id: u128) -> Self {
        let mut head = [0; HEAD];
        head[0] = SCHEME;
        // The length of no namespace.
        head[1] = 0;
        head[2..].copy_from_slice(&id.to_be_bytes());
        FunctionId(head)
    }

    /// What keys begin with.
    #[inline]
    pub(super) fn head(&self) -> &[u8; HEAD] {
        &self.0
    }
}

/// An identity, and where it came from.
pub(crate) struct Identity {
    /// As an error: why another function may have the same one in another process.
    pub(crate) id: Result<FunctionId, &'static str>,
    /// As the compiler writes it, with the attribute's own changes only.
    pub(crate) path: String,
    /// Whether it is that of the function that `call = …` adds.
    pub(crate) is_sibling: bool,
}

/// What a function goes by. No two of these have the same bytes before them.
mod by {
    pub(super) const PATH: u8 = b'p';
    pub(super) const PLACE: u8 = b'l';
    pub(super) const NAME: u8 = b'n';
}

impl Identity {
    /// From the compiler's name of a closure in the function.
    pub(crate) fn new(type_name: &str, origin: &Origin) -> Self {
        let (path, is_sibling) = Path::of_function(type_name, origin.function);
        let id = match path.ambiguity() {
            Some(reason) => Err(reason),
            None => Ok(FunctionId::new(xxh3_128(&input(&path, origin)))),
        };
        Identity { id, path: path.text(), is_sibling }
    }
}

fn input(path: &Path<'_>, origin: &Origin) -> Vec<u8> {
    let mut input = Vec::new();
    let mut put = |part: &[u8]| {
        put_length(part.len() as u64, |byte| input.push(byte));
        input.extend_from_slice(part);
    };
    put(&origin.version.to_be_bytes());
    if let Some(name) = origin.name {
        put(&[by::NAME]);
        put(name.as_bytes());
        put(path.type_arguments().as_bytes());
        return input;
    }
    let is_local = path.is_local(origin.module);
    put(&[if is_local { by::PLACE } else { by::PATH }]);
    // Many programs have a crate of the same name, such as `server`.
    put(origin.package.unwrap_or_default().as_bytes());
    put(path.normal().as_bytes());
    if is_local {
        put(&origin.tokens.to_be_bytes());
        put(&origin.line.to_be_bytes());
        put(&origin.column.to_be_bytes());
    }
    input
}
