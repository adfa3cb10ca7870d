//! A place in the source that carries the attribute, and the register of all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::key::{FunctionId, Identity};
use crate::codec::CodecError;

/// What the attribute knows about its function.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The function's name.
    pub function: &'static str,
    /// `name = "…"`.
    pub name: Option<&'static str>,
    /// `version = N`, else 0.
    pub version: u64,
    /// A hash of the function's tokens.
    pub tokens: u64,
    /// Where it is.
    pub file: &'static str,
    /// Where it is.
    pub line: u32,
    /// Where it is.
    pub column: u32,
}

impl Origin {
    fn is_same_function(&self, other: &Origin) -> bool {
        let place = |origin: &Origin| (origin.file, origin.line, origin.column, origin.tokens);
        place(self) == place(other)
    }
}

/// One annotated function, with the identities of its instantiations.
pub struct Site {
    origin: Origin,
    known: RwLock<BTreeMap<(usize, usize), Option<FunctionId>>>,
    /// A value was read back once; from then on that is taken for granted.
    reads_back: AtomicBool,
    warned: AtomicBool,
}

/// Who has an identity in this process.
struct Owner {
    origin: Origin,
    path: String,
}

fn register() -> &'static Mutex<HashMap<FunctionId, Owner>> {
    static REGISTER: OnceLock<Mutex<HashMap<FunctionId, Owner>>> = OnceLock::new();
    REGISTER.get_or_init(Mutex::default)
}

impl Site {
    /// For a `static` at the function.
    pub const fn new(origin: Origin) -> Self {
        Site {
            origin,
            known: RwLock::new(BTreeMap::new()),
            reads_back: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// The function's name.
    pub(crate) fn name(&self) -> &'static str {
        self.origin.function
    }

    /// Whether stored values can be read. Types exist that the codec writes and cannot read; to
    /// store them would cost a write per call and never give a hit.
    pub(crate) fn reads_back(
        &self,
        read: impl FnOnce() -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        if self.reads_back.load(Ordering::Relaxed) {
            return Ok(());
        }
        let outcome = read();
        if let Err(error) = &outcome
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let Origin { function, file, line, .. } = self.origin;
            tracing::warn!(function, file, line, %error, "this function's value cannot be cached");
        }
        self.reads_back.store(outcome.is_ok(), Ordering::Relaxed);
        outcome
    }

    /// The identity of one instantiation, or none if another function has it.
    pub(crate) fn function(&self, type_name: &'static str) -> Option<FunctionId> {
        // One instantiation always passes one text; its address is a cheaper key than the text.
        let text = (type_name.as_ptr() as usize, type_name.len());
        if let Some(id) = self.known.read().get(&text) {
            return *id;
        }
        let id = self.claim(type_name);
        self.known.write().insert(text, id);
        id
    }

    fn claim(&self, type_name: &str) -> Option<FunctionId> {
        let origin = &self.origin;
        let identity = Identity::new(type_name, origin.function, origin.name, origin.version);
        let mut register = register().lock();
        let owner = register
            .entry(identity.id)
            .or_insert_with(|| Owner { origin: *origin, path: identity.path.clone() });
        if owner.origin.is_same_function(origin) && owner.path == identity.path {
            return Some(identity.id);
        }
        let (first, second) = (owner.origin, origin);
        drop(register);
        tracing::warn!(
            function = %identity.path,
            first = %format_args!("{}:{}", first.file, first.line),
            second = %format_args!("{}:{}", second.file, second.line),
            "two memoized functions have one identity; the second is not cached: give it \
             `name = \"…\"`"
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: u32) -> Origin {
        Origin {
            function: "f",
            name: None,
            version: 0,
            tokens: 1,
            file: "site.rs",
            line,
            column: 1,
        }
    }

    #[test]
    fn the_second_function_of_an_identity_stays_without() {
        let (first, second) = (Site::new(origin(1)), Site::new(origin(2)));
        assert!(first.function("site::one::f::{{closure}}").is_some());
        assert_eq!(second.function("site::one::f::{{closure}}"), None);
        // Asked again, both keep what they got.
        assert!(first.function("site::one::f::{{closure}}").is_some());
        assert_eq!(second.function("site::one::f::{{closure}}"), None);
    }

    #[test]
    fn a_function_and_its_sibling_are_one() {
        let (plain, sibling) = (Site::new(origin(3)), Site::new(origin(3)));
        let id = plain.function("site::two::f::{{closure}}");
        assert!(id.is_some());
        assert_eq!(sibling.function("site::two::f_call::{{closure}}"), id);
    }

    #[test]
    fn paths_that_differ_only_in_what_is_normalised_are_two() {
        let site = Site::new(origin(4));
        assert!(site.function("site::three::f<alloc::Thing>::{{closure}}").is_some());
        assert_eq!(site.function("site::three::f<core::Thing>::{{closure}}"), None);
    }

    #[test]
    fn versions_are_two_identities() {
        let next = Origin { version: 1, line: 6, ..origin(5) };
        let (old, new) = (Site::new(origin(5)), Site::new(next));
        let (old, new) = (old.function("site::four::f"), new.function("site::four::f"));
        assert!(old.is_some() && new.is_some() && old != new);
    }
}
