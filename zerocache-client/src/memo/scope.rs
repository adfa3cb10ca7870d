//! Scopes, in which memoized calls use one client.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::ZerocacheClient;

thread_local! {
    static CURRENT: RefCell<Option<ZerocacheClient>> = const { RefCell::new(None) };
}

/// Returns the client of the innermost scope on this thread.
#[inline]
pub(crate) fn current() -> Option<ZerocacheClient> {
    // A thread that is being torn down has no scope.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Returns true if a scope is active on this thread.
#[inline]
pub(crate) fn is_set() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

/// Restores the previous client when it is dropped, also after a panic.
struct Restore(Option<ZerocacheClient>);

impl Restore {
    fn enter(client: &ZerocacheClient) -> Self {
        Restore(CURRENT.with(|current| current.replace(Some(client.clone()))))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let previous = self.0.take();
        // The client of this scope is dropped after the borrow.
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
    /// Meant for tests: each has its own cluster, and the code under test is unchanged. Tasks that the future
    /// spawns are outside of the scope, and need a scope of their own.
    pub fn scope<F: Future>(&self, future: F) -> Scope<F> {
        Scope { client: self.clone(), future }
    }

    /// Runs a closure in which every memoized call uses this client.
    pub fn scope_sync<R>(&self, run: impl FnOnce() -> R) -> R {
        let _restore = Restore::enter(self);
        run()
    }
}
