//! A place in the source that carries the attribute, and the register of all of them.

use std::any::{TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use zerocache_net::clock;
use zerocache_net::process::PerProcess;

use super::key::{FunctionId, Identity};
use crate::ZerocacheClient;
use crate::client::{LocalState, generation};

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
    /// The package that it is compiled in, where a package manager says so.
    pub package: Option<&'static str>,
    /// The module that it stands in, however deep.
    pub module: &'static str,
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

/// One instantiation of an annotated function, by the type of a closure in it: nothing else has that, while
/// its name may be another's too.
#[derive(Clone, Copy)]
pub struct Instance {
    id: TypeId,
    name: fn() -> &'static str,
}

impl Instance {
    /// The one in which this closure stands.
    #[inline]
    pub fn of<T>(_: &T) -> Self {
        Instance { id: typeid::of::<T>(), name: type_name::<T> }
    }
}

/// One annotated function, with the identities of its instantiations.
pub struct Site {
    origin: Origin,
    /// What was asked for first, and in most functions is all there is: read without a lock.
    first: OnceLock<(TypeId, Option<&'static FunctionId>)>,
    known: RwLock<BTreeMap<TypeId, Option<&'static FunctionId>>>,
    face: PerProcess<Named>,
    warned: AtomicBool,
    warned_of_argument: AtomicBool,
    /// From when on it may be said again that there are two shapes, in milliseconds of the process's clock.
    shapes_said_from: AtomicU64,
}

/// Where a text is, and how long: one attribute always passes one text, and its place is a cheaper
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
    face: Arc<LocalState>,
}

/// Who has an identity in this process.
struct Owner {
    origin: Origin,
    /// The function itself, and its sibling, as far as they were called.
    instances: [Option<TypeId>; 2],
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

    /// The identity of one instantiation, or none if another function has it or may have it.
    #[inline]
    pub(crate) fn function(&self, instance: Instance) -> Option<&'static FunctionId> {
        match self.first.get() {
            Some((known, id)) if *known == instance.id => *id,
            _ => self.look_up(instance),
        }
    }

    #[cold]
    fn look_up(&self, instance: Instance) -> Option<&'static FunctionId> {
        if let Some(id) = self.known.read().get(&instance.id) {
            return *id;
        }
        // For as long as the process, as the function is there; moved as a pointer.
        let id: Option<&'static FunctionId> =
            self.claim(instance).map(|id| &*Box::leak(Box::new(id)));
        self.known.write().insert(instance.id, id);
        // Where another instantiation was first, this one goes on without.
        let _ = self.first.set((instance.id, id));
        id
    }

    /// Runs `use_it` with what a call of this function needs of the client of `region`.
    #[inline]
    pub(crate) fn with_face<R>(
        &self,
        region: &'static str,
        use_it: impl FnOnce(&Arc<LocalState>) -> R,
    ) -> R {
        let is_now =
            |named: &&Named| named.generation == generation() && named.region == text(region);
        match self.face.get().filter(is_now) {
            Some(named) => use_it(&named.face),
            None => use_it(&self.ask_for(region)),
        }
    }

    #[cold]
    fn ask_for(&self, region: &'static str) -> Arc<LocalState> {
        // Read before: a client that is forgotten meanwhile is asked for again.
        let generation = generation();
        let face = Arc::clone(ZerocacheClient::get_instance(region).local_state());
        let named = Named { region: text(region), generation, face: Arc::clone(&face) };
        // After a client was forgotten the function goes on without.
        self.face.get_or_init(|_| named);
        face
    }

    fn claim(&self, instance: Instance) -> Option<FunctionId> {
        let origin = &self.origin;
        let Identity { id, path, is_sibling } = Identity::new((instance.name)(), origin);
        let id = match id {
            Ok(id) => id,
            Err(reason) => {
                self.warn_of_argument(&reason);
                return None;
            }
        };
        let mut register = register().lock();
        let owner = register
            .entry(id)
            .or_insert_with(|| Owner { origin: *origin, instances: [None, None] });
        let known = &mut owner.instances[usize::from(is_sibling)];
        if owner.origin.is_same_function(origin) && known.is_none_or(|known| known == instance.id) {
            *known = Some(instance.id);
            return Some(id);
        }
        let (first, second) = (owner.origin, origin);
        drop(register);
        tracing::warn!(
            function = %path,
            first = %format_args!("{}:{}", first.file, first.line),
            second = %format_args!("{}:{}", second.file, second.line),
            "two memoized functions, or two types of one, have one identity; the second is not cached: \
             give the function `name = \"…\"`, or the type another name"
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
            package: None,
            module: "site",
            tokens: 1,
            file: "site.rs",
            line,
            column: 1,
        }
    }

    /// As if `T` were the closure of that name.
    fn instance<T: 'static>(name: fn() -> &'static str) -> Instance {
        Instance { id: TypeId::of::<T>(), name }
    }

    #[test]
    fn the_second_function_of_an_identity_stays_without() {
        let (first, second) = (Site::new(origin(1)), Site::new(origin(2)));
        let one = instance::<u8>(|| "site::One::f::{{closure}}");
        let two = instance::<u16>(|| "site::One::f::{{closure}}");
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
        // Asked again, both keep what they got.
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
    }

    #[test]
    fn a_function_and_its_sibling_are_one() {
        let (plain, sibling) = (Site::new(origin(3)), Site::new(origin(3)));
        let id = plain.function(instance::<u8>(|| "site::Two::f::{{closure}}"));
        assert!(id.is_some());
        let other = instance::<u16>(|| "site::Two::f_call::{{closure}}");
        assert_eq!(sibling.function(other), id);
    }

    #[test]
    fn two_types_of_one_name_are_two() {
        let site = Site::new(origin(4));
        let one = instance::<u8>(|| "site::f<dep::Thing>::{{closure}}");
        let two = instance::<u16>(|| "site::f<dep::Thing>::{{closure}}");
        let id = site.function(one);
        assert!(id.is_some());
        assert_eq!((site.function(two), site.function(one)), (None, id));
        // Nor where only what is normalised tells their names apart.
        let three = instance::<u32>(|| "site::three::f<alloc::Thing>::{{closure}}");
        let four = instance::<u64>(|| "site::three::f<core::Thing>::{{closure}}");
        assert!(site.function(three).is_some());
        assert_eq!(site.function(four), None);
    }

    #[test]
    fn copies_of_a_function_that_one_macro_makes_at_one_place_are_two() {
        let (first, second) = (Site::new(origin(7)), Site::new(origin(7)));
        let one = instance::<u8>(|| "site::_::f::{{closure}}");
        let two = instance::<u16>(|| "site::_::f::{{closure}}");
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
    }

    #[test]
    fn versions_are_two_identities() {
        let next = Origin { version: 1, line: 6, ..origin(5) };
        let (old, new) = (Site::new(origin(5)), Site::new(next));
        let name = || "site::Four::f";
        let (old, new) = (old.function(instance::<u8>(name)), new.function(instance::<u16>(name)));
        assert!(old.is_some() && new.is_some() && old != new);
    }
}
