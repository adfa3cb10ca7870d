//! Another client for the memoized calls of a future or a closure.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::ZerocacheClient;

thread_local! {
    static CURRENT: RefCell<Option<ZerocacheClient>> = const { RefCell::new(None) };
}

/// The client of the innermost scope that runs on this thread.
#[inline]
pub(crate) fn current() -> Option<ZerocacheClient> {
    // A thread that is being torn down has no scope.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Whether there is a scope that runs on this thread.
#[inline]
pub(crate) fn is_set() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

/// Puts the previous client back, after a panic too.
struct Restore(Option<ZerocacheClient>);

impl Restore {
    fn enter(client: &ZerocacheClient) -> Self {
        Restore(CURRENT.with(|current| current.replace(Some(client.clone()))))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let previous = self.0.take();
        // The client of this scope is dropped after the borrow has ended.
        let _ours = CURRENT.try_with(|current| current.replace(previous));
    }
}

pin_project! {
    /// A future whose memoized calls use one client; from [`ZerocacheClient::scope`].
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Scope<F> {
        client: ZerocacheClient,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _restore = Restore::enter(this.client);
        this.future.poll(context)
    }
}

impl ZerocacheClient {
    /// Runs a future in which every memoized call uses this client, whatever its attribute says.
    ///
    /// For tests: each has its own cluster, and the code under test stays as it is. Tasks that the
    /// future spawns are outside of the scope; scope what they run too.
    pub fn scope<F: Future>(&self, future: F) -> Scope<F> {
        Scope { client: self.clone(), future }
    }

    /// Runs a closure in which every memoized call uses this client.
    pub fn scope_sync<R>(&self, run: impl FnOnce() -> R) -> R {
        let _restore = Restore::enter(self);
        run()
    }
}
