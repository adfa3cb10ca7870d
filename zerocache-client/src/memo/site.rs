//! Functions with the attribute, and the register of their identities.

use std::any::{TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use zerocache_net::clock;
use zerocache_net::process::PerProcess;

use super::key::{FunctionId, Identity};
use super::limit;
use crate::ZerocacheClient;
use crate::client::{LocalState, generation};

/// The interval between a function's warnings about values of another shape, in milliseconds. A rollout of two
/// releases takes minutes; one that stays half done shows up again.
const SHAPE_WARNING_INTERVAL_MS: u64 = 600_000;

/// A function as the attribute sees it.
#[derive(Clone, Copy)]
pub struct FunctionInfo {
    /// The function's name.
    pub function: &'static str,
    /// `name = "…"`.
    pub name: Option<&'static str>,
    /// `version = N`, else 0.
    pub version: u64,
    /// The package in which it is compiled, if a package manager states it.
    pub package: Option<&'static str>,
    /// The path of its module.
    pub module: &'static str,
    /// A hash of the function's tokens.
    pub tokens: u64,
    /// The source file.
    pub file: &'static str,
    /// The line in the file.
    pub line: u32,
    /// The column in the line.
    pub column: u32,
}

/// Where a function is in the source: its file, line, column and the hash of its tokens.
pub(super) type SourcePlace = (&'static str, u32, u32, u64);

impl FunctionInfo {
    fn place(&self) -> SourcePlace {
        (self.file, self.line, self.column, self.tokens)
    }

    fn is_same_function(&self, other: &FunctionInfo) -> bool {
        self.place() == other.place()
    }
}

/// An instantiation of an annotated function, identified by the type of a closure in it. The type is unique;
/// its name may belong to several types.
#[derive(Clone, Copy)]
pub struct Instance {
    id: TypeId,
    name: fn() -> &'static str,
}

impl Instance {
    /// Returns the instantiation that contains the closure.
    #[inline]
    pub fn of<T>(_: &T) -> Self {
        Instance { id: typeid::of::<T>(), name: type_name::<T> }
    }
}

/// An annotated function, with the identities of its instantiations.
pub struct Site {
    info: FunctionInfo,
    /// The first instantiation, which in most functions is the only one: read without a lock.
    first: OnceLock<(TypeId, Option<&'static FunctionId>)>,
    ids: RwLock<BTreeMap<TypeId, Option<&'static FunctionId>>>,
    local: PerProcess<RegionClient>,
    limit: PerProcess<Arc<Semaphore>>,
    warned: AtomicBool,
    warned_of_argument: AtomicBool,
    /// The earliest time of the next warning about shapes, in milliseconds of the process's clock.
    shape_warning_from_ms: AtomicU64,
}

/// The address and length of a text: an attribute always passes the same text, and its address is a cheaper
/// key than its bytes.
type TextId = (usize, usize);

fn text_id(of: &'static str) -> TextId {
    (of.as_ptr() as usize, of.len())
}

/// The client of the region that the attribute names.
struct RegionClient {
    region: TextId,
    /// The registry's generation: with another one the region may have another client.
    generation: u64,
    local: Arc<LocalState>,
}

/// The function that has an identity in this process.
struct Owner {
    info: FunctionInfo,
    /// The function and its sibling (`call = …`), as far as they were called.
    instances: [Option<TypeId>; 2],
}

fn register() -> &'static Mutex<HashMap<FunctionId, Owner>> {
    static REGISTER: OnceLock<Mutex<HashMap<FunctionId, Owner>>> = OnceLock::new();
    REGISTER.get_or_init(Mutex::default)
}

impl Site {
    /// Creates the site; the expansion puts it into a `static`.
    pub const fn new(info: FunctionInfo) -> Self {
        Site {
            info,
            first: OnceLock::new(),
            ids: RwLock::new(BTreeMap::new()),
            local: PerProcess::new(),
            limit: PerProcess::new(),
            warned: AtomicBool::new(false),
            warned_of_argument: AtomicBool::new(false),
            shape_warning_from_ms: AtomicU64::new(0),
        }
    }

    /// Returns the function's name.
    pub(crate) fn name(&self) -> &'static str {
        self.info.function
    }

    /// Returns the limit of the function's runs, which the first call sets.
    pub(super) fn limit(&self, runs_max: u32) -> &Arc<Semaphore> {
        self.limit.get_or_init(|_| limit::of(self.info.place(), runs_max))
    }

    /// Warns once that a value cannot be encoded, cannot be read back, or is refused by the nodes.
    pub(crate) fn warn(&self, error: &impl Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let FunctionInfo { function, file, line, .. } = self.info;
            tracing::warn!(function, file, line, %error, "cannot cache this function's value");
        }
    }

    /// Warns that the cache holds a value of another shape; rate-limited.
    #[cold]
    pub(crate) fn warn_of_shape(&self, error: &impl Display) {
        let now = clock::mono().as_millis();
        let from_ms = self.shape_warning_from_ms.load(Ordering::Relaxed);
        let next = now.saturating_add(SHAPE_WARNING_INTERVAL_MS);
        // One of several concurrent callers warns.
        let relaxed = Ordering::Relaxed;
        if now < from_ms
            || self.shape_warning_from_ms.compare_exchange(from_ms, next, relaxed, relaxed).is_err()
        {
            return;
        }
        let FunctionInfo { function, file, line, .. } = self.info;
        tracing::warn!(
            function,
            file,
            line,
            %error,
            "cache holds a value of another shape, which this function cannot read: probably two \
             versions of the function are in use; each keeps its own values, at the cost of one more read"
        );
    }

    /// Warns once that an argument cannot be encoded.
    #[cold]
    pub(crate) fn warn_of_argument(&self, error: &impl Display) {
        if !self.warned_of_argument.swap(true, Ordering::Relaxed) {
            let FunctionInfo { function, file, line, .. } = self.info;
            tracing::warn!(function, file, line, %error, "a call of this function has no key and is not cached");
        }
    }

    /// Returns the identity of an instantiation; `None` if another function has it, or may have it.
    #[inline]
    pub(crate) fn function(&self, instance: Instance) -> Option<&'static FunctionId> {
        match self.first.get() {
            Some((known, id)) if *known == instance.id => *id,
            _ => self.find_or_claim(instance),
        }
    }

    #[cold]
    fn find_or_claim(&self, instance: Instance) -> Option<&'static FunctionId> {
        if let Some(id) = self.ids.read().get(&instance.id) {
            return *id;
        }
        // Leaked: it lives as long as the function, and is passed on as a pointer.
        let id: Option<&'static FunctionId> =
            self.claim(instance).map(|id| &*Box::leak(Box::new(id)));
        self.ids.write().insert(instance.id, id);
        // If another instantiation was first, this one is read from the map.
        let _ = self.first.set((instance.id, id));
        id
    }

    /// Runs `use_it` with the state that a call of this function needs of the client of `region`.
    #[inline]
    pub(crate) fn with_face<R>(
        &self,
        region: &'static str,
        use_it: impl FnOnce(&Arc<LocalState>) -> R,
    ) -> R {
        let is_now = |region_client: &&RegionClient| {
            region_client.generation == generation() && region_client.region == text_id(region)
        };
        match self.local.get().filter(is_now) {
            Some(region_client) => use_it(&region_client.local),
            None => use_it(&self.resolve(region)),
        }
    }

    #[cold]
    fn resolve(&self, region: &'static str) -> Arc<LocalState> {
        // Read first: if the client is cleared meanwhile, the next call resolves it again.
        let generation = generation();
        let local = Arc::clone(ZerocacheClient::get_instance(region).local_state());
        let region_client =
            RegionClient { region: text_id(region), generation, local: Arc::clone(&local) };
        // After a client was cleared, the function resolves its client at each call.
        self.local.get_or_init(|_| region_client);
        local
    }

    fn claim(&self, instance: Instance) -> Option<FunctionId> {
        let info = &self.info;
        let Identity { id, path, is_sibling } = Identity::new((instance.name)(), info);
        let id = match id {
            Ok(id) => id,
            Err(reason) => {
                self.warn_of_argument(&reason);
                return None;
            }
        };
        let mut register = register().lock();
        let owner =
            register.entry(id).or_insert_with(|| Owner { info: *info, instances: [None, None] });
        let known = &mut owner.instances[usize::from(is_sibling)];
        if owner.info.is_same_function(info) && known.is_none_or(|known| known == instance.id) {
            *known = Some(instance.id);
            return Some(id);
        }
        let (first, second) = (owner.info, info);
        drop(register);
        tracing::warn!(
            function = %path,
            first = %format_args!("{}:{}", first.file, first.line),
            second = %format_args!("{}:{}", second.file, second.line),
            "two memoized functions, or two types of one, have the same identity, and the second is not \
             cached: give the function `name = \"…\"`, or the type another name"
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(line: u32) -> FunctionInfo {
        FunctionInfo {
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

    /// Returns an instantiation, with `T` in place of its closure.
    fn instance<T: 'static>(name: fn() -> &'static str) -> Instance {
        Instance { id: TypeId::of::<T>(), name }
    }

    #[test]
    fn second_function_of_an_identity_gets_none() {
        let (first, second) = (Site::new(info(1)), Site::new(info(2)));
        let one = instance::<u8>(|| "site::One::f::{{closure}}");
        let two = instance::<u16>(|| "site::One::f::{{closure}}");
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
        // A further call gets the same result.
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
    }

    #[test]
    fn function_and_its_sibling_share_an_identity() {
        let (plain, sibling) = (Site::new(info(3)), Site::new(info(3)));
        let id = plain.function(instance::<u8>(|| "site::Two::f::{{closure}}"));
        assert!(id.is_some());
        let other = instance::<u16>(|| "site::Two::f_call::{{closure}}");
        assert_eq!(sibling.function(other), id);
    }

    #[test]
    fn second_type_of_the_same_name_gets_no_identity() {
        let site = Site::new(info(4));
        let one = instance::<u8>(|| "site::f<dep::Thing>::{{closure}}");
        let two = instance::<u16>(|| "site::f<dep::Thing>::{{closure}}");
        let id = site.function(one);
        assert!(id.is_some());
        assert_eq!((site.function(two), site.function(one)), (None, id));
        // Nor if the names differ only in parts that are normalised.
        let three = instance::<u32>(|| "site::three::f<alloc::Thing>::{{closure}}");
        let four = instance::<u64>(|| "site::three::f<core::Thing>::{{closure}}");
        assert!(site.function(three).is_some());
        assert_eq!(site.function(four), None);
    }

    #[test]
    fn second_copy_that_a_macro_makes_at_one_place_gets_no_identity() {
        let (first, second) = (Site::new(info(7)), Site::new(info(7)));
        let one = instance::<u8>(|| "site::_::f::{{closure}}");
        let two = instance::<u16>(|| "site::_::f::{{closure}}");
        assert!(first.function(one).is_some());
        assert_eq!(second.function(two), None);
    }

    #[test]
    fn versions_have_different_identities() {
        let next = FunctionInfo { version: 1, line: 6, ..info(5) };
        let (old, new) = (Site::new(info(5)), Site::new(next));
        let name = || "site::Four::f";
        let (old, new) = (old.function(instance::<u8>(name)), new.function(instance::<u16>(name)));
        assert!(old.is_some() && new.is_some() && old != new);
    }
}
