//! Who a function is: its path, made independent of what may change without meaning.
//!
//! The compiler names a closure inside the function, and that name holds the crate, the modules,
//! the impl's type and trait with their arguments, the function, and its type arguments:
//!
//! ```text
//! shop::<impl shop::Repo<u8>>::find<alloc::string::String>::{{closure}}
//! ```
//!
//! That text is not promised to be stable. What is known to vary is taken out here; where it
//! varies after all, the result is a miss, never a wrong hit.

use xxhash_rust::xxh3::xxh3_128;

use super::{HEAD, SCHEME};

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

/// An identity, and the path that it came from.
pub(crate) struct Identity {
    pub(crate) id: FunctionId,
    /// As the compiler writes it, with the attribute's own changes only.
    pub(crate) path: String,
}

impl Identity {
    /// From the compiler's name of a closure in `function`, an explicit name, and a version.
    pub(crate) fn new(type_name: &str, function: &str, name: Option<&str>, version: u64) -> Self {
        let path = own_path(type_name, function);
        let normal = normalise(&path);
        let (kind, text) = match name {
            // A name never equals a path.
            Some(name) => (b'n', format!("{name}\0{}", type_arguments(&normal))),
            None => (b'p', normal),
        };
        let mut input = vec![kind];
        input.extend_from_slice(&version.to_be_bytes());
        input.extend_from_slice(text.as_bytes());
        Identity { id: FunctionId::new(xxh3_128(&input)), path }
    }
}

const CLOSURE: &str = "::{{closure}}";

/// The path of the annotated function: without the closure, and with `function` as its last
/// segment (the sibling of `call = …` is another function to the compiler, but not to us).
pub(super) fn own_path(type_name: &str, function: &str) -> String {
    let mut path = type_name;
    while let Some(rest) = path.strip_suffix(CLOSURE) {
        path = rest;
    }
    rename_last(path, function)
}

/// Takes out what may change without meaning: lifetimes, spaces that only lay out, and which of
/// `core`, `alloc` and `std` a standard type lives in.
pub(super) fn normalise(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(letter) = rest.chars().next() {
        let word_len =
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if letter == '\'' {
            rest = skip_lifetime(rest, &mut text);
        } else if word_len > 0 {
            let (word, after) = rest.split_at(word_len);
            let root = !text.ends_with("::") && after.starts_with("::");
            text.push_str(if root && matches!(word, "core" | "alloc") { "std" } else { word });
            rest = after;
        } else {
            if letter != ' ' || keeps_space(&text) {
                text.push(letter);
            }
            rest = &rest[letter.len_utf8()..];
        }
    }
    text
}

/// Spaces after words separate them (`dyn Trait`, `T as Trait`); others are layout.
fn keeps_space(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '>' | ')' | ']'))
}

/// Drops a lifetime and the comma or space that belongs to it; keeps a character literal.
fn skip_lifetime<'a>(rest: &'a str, text: &mut String) -> &'a str {
    let name = &rest[1..];
    let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
    if end == 0 || name[end..].starts_with('\'') {
        // A const generic argument such as 'x' or '\n'.
        text.push('\'');
        return name;
    }
    let after = &name[end..];
    if let Some(after) = after.strip_prefix(',') {
        return after.trim_start();
    }
    if after.starts_with('>') && text.ends_with('<') {
        text.pop();
        return &after[1..];
    }
    after.trim_start()
}

/// Replaces the name of the last path segment outside of brackets.
fn rename_last(path: &str, function: &str) -> String {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut end = path.len();
    let bytes = path.as_bytes();
    for (position, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => {
                if depth == 0 && end > position {
                    end = position;
                }
                depth += 1;
            }
            // The arrow of a function pointer closes nothing.
            b'>' if position > 0 && bytes[position - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && position > 0 && bytes[position - 1] == b':' => {
                start = position + 1;
                end = path.len();
            }
            _ => {}
        }
    }
    let end = end.max(start);
    format!("{}{}{}", &path[..start], function, &path[end..])
}

/// What remains of a path beside an explicit name: type arguments, and the types of a trait's
/// impl. Without them all instantiations of a generic function would share a name's entries.
pub(super) fn type_arguments(path: &str) -> String {
    let mut text = String::new();
    let mut depth = 0_usize;
    let bytes = path.as_bytes();
    for (position, letter) in path.char_indices() {
        let closes = letter == '>' && !(position > 0 && bytes[position - 1] == b'-');
        if letter == '<' {
            depth += 1;
        }
        if depth > 0 {
            text.push(letter);
        }
        if closes {
            depth = depth.saturating_sub(1);
        }
    }
    text
}
