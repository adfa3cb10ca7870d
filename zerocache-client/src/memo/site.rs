//! A place in the source that carries the attribute, and the register of all of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use zerocache_net::clock;
use zerocache_net::process::PerProcess;

use super::key::{FunctionId, Identity};
use crate::ZerocacheClient;
use crate::client::{Face, generation};

/// How often it is said of a function that the cache holds values of another shape, in milliseconds: a
/// deployment of two releases takes minutes, and one that is left half done is to be heard of again.
const SHAPES_SAID_EVERY_MS: u64 = 600_000;

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
    /// What was asked for first, and in most functions is all there is: read without a lock.
    first: OnceLock<(Text, Option<&'static FunctionId>)>,
    known: RwLock<BTreeMap<Text, Option<&'static FunctionId>>>,
    face: PerProcess<Named>,
    warned: AtomicBool,
    warned_of_argument: AtomicBool,
    /// From when on it may be said again that there are two shapes, in milliseconds of the process's clock.
    shapes_said_from: AtomicU64,
}

/// Where a text is, and how long: one instantiation always passes one text, and its place is a cheaper
/// key than its bytes.
type Text = (usize, usize);

fn text(of: &'static str) -> Text {
    (of.as_ptr() as usize, of.len())
}

/// The client of the region that the attribute names.
struct Named {
    region: Text,
    /// It may be another one after this.
    generation: u64,
    face: Arc<Face>,
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
            first: OnceLock::new(),
            known: RwLock::new(BTreeMap::new()),
            face: PerProcess::new(),
            warned: AtomicBool::new(false),
            warned_of_argument: AtomicBool::new(false),
            shapes_said_from: AtomicU64::new(0),
        }
    }

    /// The function's name.
    pub(crate) fn name(&self) -> &'static str {
        self.origin.function
    }

    /// Says once that a value cannot be written, not be read back, or is taken by no node.
    pub(crate) fn warn(&self, error: &impl Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let Origin { function, file, line, .. } = self.origin;
            tracing::warn!(function, file, line, %error, "this function's value cannot be cached");
        }
    }

    /// Says, not too often, that the cache holds a value that the function cannot read.
    #[cold]
    pub(crate) fn warn_of_shape(&self, error: &impl Display) {
        let now = clock::mono().as_millis();
        let said_from = self.shapes_said_from.load(Ordering::Relaxed);
        let next = now.saturating_add(SHAPES_SAID_EVERY_MS);
        // Of those who come at once one says it.
        let relaxed = Ordering::Relaxed;
        if now < said_from
            || self.shapes_said_from.compare_exchange(said_from, next, relaxed, relaxed).is_err()
        {
            return;
        }
        let Origin { function, file, line, .. } = self.origin;
        tracing::warn!(
            function,
            file,
            line,
            %error,
            "the cache holds a value that this function cannot read, as while two versions of it are \
             in use: each keeps its own values, and takes one more read for them"
        );
    }

    /// Says once that an argument cannot be encoded.
    #[cold]
    pub(crate) fn warn_of_argument(&self, error: &impl Display) {
        if !self.warned_of_argument.swap(true, Ordering::Relaxed) {
            let Origin { function, file, line, .. } = self.origin;
            tracing::warn!(function, file, line, %error, "a call of this function has no key");
        }
    }

    /// The identity of one instantiation, or none if another function has it.
    #[inline]
    pub(crate) fn function(&self, type_name: &'static str) -> Option<&'static FunctionId> {
        match self.first.get() {
            Some((known, id)) if *known == text(type_name) => *id,
            _ => self.look_up(type_name),
        }
    }

    #[cold]
    fn look_up(&self, type_name: &'static str) -> Option<&'static FunctionId> {
        let place = text(type_name);
        if let Some(id) = self.known.read().get(&place) {
            return *id;
        }
        // For as long as the process, as the function is there; moved as a pointer.
        let id: Option<&'static FunctionId> =
            self.claim(type_name).map(|id| &*Box::leak(Box::new(id)));
        self.known.write().insert(place, id);
        // Where another instantiation was first, this one goes on without.
        let _ = self.first.set((place, id));
        id
    }

    /// Runs `use_it` with what a call of this function needs of the client of `region`.
    #[inline]
    pub(crate) fn with_face<R>(
        &self,
        region: &'static str,
        use_it: impl FnOnce(&Arc<Face>) -> R,
    ) -> R {
        let is_now =
            |named: &&Named| named.generation == generation() && named.region == text(region);
        match self.face.get().filter(is_now) {
            Some(named) => use_it(&named.face),
            None => use_it(&self.ask_for(region)),
        }
    }

    #[cold]
    fn ask_for(&self, region: &'static str) -> Arc<Face> {
        // Read before: a client that is forgotten meanwhile is asked for again.
        let generation = generation();
        let face = Arc::clone(ZerocacheClient::get_instance(region).face());
        let named = Named { region: text(region), generation, face: Arc::clone(&face) };
        // After a client was forgotten the function goes on without.
        self.face.get_or_make(|_| named);
        face
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
