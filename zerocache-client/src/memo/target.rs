//! The client of a call.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use super::scope;
use super::site::Site;
use crate::ZerocacheClient;
use crate::client::{LocalState, environment};

/// The attribute's first argument: a region's name, or a client. Sealed.
///
/// Implemented for `str`, `String`, `Cow<str>` and [`ZerocacheClient`], and for references, `Box`, `Rc` and
/// `Arc` of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither the name of a region nor a client",
    label = "expected a `&str`, a `String` or a `ZerocacheClient`"
)]
pub trait RegionOrClient: sealed::Sealed {
    /// Returns the target.
    #[doc(hidden)]
    fn target(&self) -> Target;
}

/// A region by name, whose client is resolved when the call runs, or a client.
#[derive(Clone)]
pub struct Target(TargetKind);

#[derive(Clone)]
enum TargetKind {
    Named(&'static str),
    Region(Box<str>),
    Client(ZerocacheClient),
}

impl Target {
    /// Creates the target of a literal region.
    pub const fn named(region: &'static str) -> Self {
        Target(TargetKind::Named(region))
    }

    /// Creates the target of an attribute without a region: the region that the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        match environment::region() {
            Ok(region) => Target::named(region),
            Err(error) => Target::client(environment::without_region(error)),
        }
    }

    pub(crate) fn client(client: ZerocacheClient) -> Self {
        Target(TargetKind::Client(client))
    }

    /// Runs `use_it` with the state that a call at `site` needs of the client that
    /// [`resolve`](Self::resolve) returns.
    #[inline]
    pub(crate) fn with_face<R>(
        &self,
        site: &Site,
        use_it: impl FnOnce(&Arc<LocalState>) -> R,
    ) -> R {
        if scope::is_set() {
            return use_it(self.resolve().local_state());
        }
        match &self.0 {
            TargetKind::Named(region) => site.with_face(region, use_it),
            TargetKind::Region(region) => {
                use_it(ZerocacheClient::get_instance(region).local_state())
            }
            TargetKind::Client(client) => use_it(client.local_state()),
        }
    }

    /// Returns the client of the current scope, otherwise that of the target.
    pub(crate) fn resolve(&self) -> ZerocacheClient {
        if let Some(client) = scope::current() {
            return client;
        }
        match &self.0 {
            TargetKind::Named(region) => ZerocacheClient::get_instance(region),
            TargetKind::Region(region) => ZerocacheClient::get_instance(region),
            TargetKind::Client(client) => client.clone(),
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for str {}
impl sealed::Sealed for String {}
impl sealed::Sealed for Cow<'_, str> {}
impl sealed::Sealed for ZerocacheClient {}

impl RegionOrClient for str {
    fn target(&self) -> Target {
        Target(TargetKind::Region(self.into()))
    }
}

impl RegionOrClient for String {
    fn target(&self) -> Target {
        self.as_str().target()
    }
}

impl RegionOrClient for Cow<'_, str> {
    fn target(&self) -> Target {
        self.as_ref().target()
    }
}

impl RegionOrClient for ZerocacheClient {
    fn target(&self) -> Target {
        Target::client(self.clone())
    }
}

macro_rules! deref {
    ($($ty:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<T: RegionOrClient + ?Sized> sealed::Sealed for $ty {}

        #[diagnostic::do_not_recommend]
        impl<T: RegionOrClient + ?Sized> RegionOrClient for $ty {
            fn target(&self) -> Target {
                (**self).target()
            }
        }
    )*};
}

deref!(&T &mut T Box<T> Rc<T> Arc<T>);
