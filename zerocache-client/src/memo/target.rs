//! Which client a call uses.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use super::scope;
use super::site::Site;
use crate::ZerocacheClient;
use crate::client::LocalState;

/// What the attribute's first argument may be: a region's name, or a client.
///
/// For `str`, `String`, `Cow<str>` and [`ZerocacheClient`], and references, `Box`, `Rc` and `Arc`
/// of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither the name of a region nor a client",
    label = "expected a `&str`, a `String` or a `ZerocacheClient`"
)]
pub trait RegionOrClient: sealed::Sealed {
    /// The client to use.
    #[doc(hidden)]
    fn target(&self) -> Target;
}

/// A region by name, looked up when the call runs, or a client.
#[derive(Clone)]
pub struct Target(Kind);

#[derive(Clone)]
enum Kind {
    Named(&'static str),
    Region(Box<str>),
    Client(ZerocacheClient),
}

impl Target {
    /// A region that the attribute names.
    pub const fn named(region: &'static str) -> Self {
        Target(Kind::Named(region))
    }

    pub(crate) fn client(client: ZerocacheClient) -> Self {
        Target(Kind::Client(client))
    }

    /// Runs `use_it` with what a call at `site` needs of the client that [`resolve`](Self::resolve)
    /// gives.
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
            Kind::Named(region) => site.with_face(region, use_it),
            Kind::Region(region) => use_it(ZerocacheClient::get_instance(region).local_state()),
            Kind::Client(client) => use_it(client.local_state()),
        }
    }

    /// The client: that of the scope in which this runs, else the one that was asked for.
    pub(crate) fn resolve(&self) -> ZerocacheClient {
        if let Some(client) = scope::current() {
            return client;
        }
        match &self.0 {
            Kind::Named(region) => ZerocacheClient::get_instance(region),
            Kind::Region(region) => ZerocacheClient::get_instance(region),
            Kind::Client(client) => client.clone(),
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
        Target(Kind::Region(self.into()))
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

macro_rules! through {
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

through!(&T &mut T Box<T> Rc<T> Arc<T>);
