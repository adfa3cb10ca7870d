//! Subscriptions: the changes of keys, tags and namespaces, as a stream.

mod queue;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::{Either, select},
};
use zerocache_core::{
    purge::{PurgeTarget, TargetId},
    route::Budget,
    version::Version,
};
use zerocache_net::{clock, process::ProcessOwned};

use self::table::Subscription;
pub(super) use self::table::{FollowGuard, Listeners, Mode};
use super::{Running, ZerocacheClient, engine::Engine, valid};
use crate::{Error, wait};

/// What changes are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A key.
    Key(Bytes),
    /// The entries with a tag.
    Tag(Arc<str>),
    /// The memoized results of a namespace.
    Namespace(Arc<str>),
    /// All entries; only of a purge of everything, which every listener hears of.
    Everything,
}

impl Subject {
    /// Returns the key, if this is one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }

    /// Returns the identity of a tag or namespace in the feed.
    fn target(&self) -> TargetId {
        match self {
            Self::Tag(tag) => TargetId::of_tag(tag.as_bytes()),
            Self::Namespace(name) => PurgeTarget::Namespace(name.as_ref().to_owned()).id(),
            Self::Key(_) | Self::Everything => TargetId::EVERYTHING,
        }
    }
}

/// A change that a node has applied; from [`Changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A value was stored. Of a tag: in an entry that has it, or had it before.
    #[non_exhaustive]
    Written {
        /// What was listened to.
        subject: Subject,
        /// The version of the write. [`at_least`](crate::ops::Get::at_least) reads this one or a newer one.
        version: Version,
    },
    /// A key was deleted. Also if its value was gone elsewhere before the node had it.
    #[non_exhaustive]
    Deleted {
        /// What was listened to.
        subject: Subject,
        /// The version of the delete.
        version: Version,
    },
    /// Entries were ended by a purge, hard or soft. A key hears of purges of its namespace and its function, and not
    /// of those of tags: who listens to a key does not know which it has.
    #[non_exhaustive]
    Purged {
        /// What was listened to; [`Subject::Everything`] for a purge of everything.
        subject: Subject,
    },
    /// No node reports changes from here on, until [`Gap`](Self::Gap).
    Interrupted,
    /// Changes before this may be missing. From here on each is reported again: what was read earlier should be read
    /// again now.
    Gap,
}

/// Begins to listen; from [`ZerocacheClient::changes`].
///
/// # Cancellation
/// Dropping it gives up the subscription.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Listen {
    client: ZerocacheClient,
    subjects: Result<BTreeSet<Subject>, Error>,
    deadline: Option<Duration>,
    running: Option<Running<Subscription>>,
}

impl Listen {
    fn new(client: ZerocacheClient) -> Self {
        Self { client, subjects: Ok(BTreeSet::new()), deadline: None, running: None }
    }

    /// Reports changes of this key.
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        let key = valid(Bytes::copy_from_slice(key.as_ref()));
        self.and(key.map(|key| Subject::Key(key.as_bytes().clone())))
    }

    /// Reports changes of these keys.
    pub fn keys<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        keys.into_iter().fold(self, Self::key)
    }

    /// Reports changes of the entries with this tag, and purges of it. An entry that loses the tag, or is deleted, is
    /// reported too, unless the node did not have it.
    pub fn tag(self, tag: impl AsRef<str>) -> Self {
        let is_allowed = PurgeTarget::tag(tag.as_ref());
        self.and(is_allowed.map(|_| Subject::Tag(tag.as_ref().into())).map_err(Error::from))
    }

    /// Reports changes of the entries with any of these tags.
    pub fn tags<T: AsRef<str>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        tags.into_iter().fold(self, Self::tag)
    }

    /// Reports changes of the memoized results of clients with this namespace, and purges of it and of its functions;
    /// `""` for clients without one.
    pub fn namespace(self, namespace: impl AsRef<str>) -> Self {
        let is_allowed = PurgeTarget::namespace(namespace.as_ref());
        let subject = is_allowed.map(|_| Subject::Namespace(namespace.as_ref().into()));
        self.and(subject.map_err(|error| Error::Refused(error.to_string())))
    }

    fn and(mut self, subject: Result<Subject, Error>) -> Self {
        match (&mut self.subjects, subject) {
            (Ok(subjects), Ok(subject)) => {
                subjects.insert(subject);
            }
            (subjects @ Ok(_), Err(error)) => *subjects = Err(error),
            (Err(_), _) => {}
        }
        self
    }

    /// How long it may take until changes are reported, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Begins now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Changes, Error> {
        wait::block_on(self)
    }
}

/// An error where no node reports changes: none is reachable that can, a subject is not allowed, or the client may
/// not read all keys.
impl Future for Listen {
    type Output = Result<Changes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { client, subjects, deadline, running } = &mut *self;
        let running = running.get_or_insert_with(|| {
            let subjects = std::mem::replace(subjects, Ok(BTreeSet::new()));
            let total_ms = client.total_ms(*deadline);
            client.run(move |engine| async move { engine.listen(subjects?, total_ms).await })
        });
        Pin::new(running).poll(context).map_ok(|subscription| Changes {
            subscription: ProcessOwned::new(subscription),
            client: client.clone(),
        })
    }
}

/// The changes since it began, each once; a [`Stream`] without an end.
///
/// It is a handle of the client: a client lives as long as one of them. Dropping it ends its cost.
///
/// In a process that was forked off it is over; listen again there.
#[must_use = "changes are kept for it, up to a bound"]
pub struct Changes {
    subscription: ProcessOwned<Subscription>,
    client: ZerocacheClient,
}

impl Changes {
    /// Returns the next change, as soon as there is one. `None` in a process that was forked off only.
    ///
    /// # Cancellation
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        poll_fn(|context| self.poll_change(context)).await
    }

    /// Returns the next change if it comes within `timeout`, and blocks the thread meanwhile; works inside and outside
    /// of any runtime.
    pub fn wait(&mut self, timeout: Duration) -> Option<Change> {
        let timeout = self.client.sleep(timeout);
        wait::block_on(async {
            match select(pin!(self.next()), pin!(timeout)).await {
                Either::Left((change, _)) => change,
                Either::Right(_) => None,
            }
        })
    }

    fn poll_change(&self, context: &Context<'_>) -> Poll<Option<Change>> {
        match self.subscription.value() {
            Some(subscription) => subscription.queue.poll_next(context).map(Some),
            None => Poll::Ready(None),
        }
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        self.poll_change(context)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("client", &self.client).finish_non_exhaustive()
    }
}

impl ZerocacheClient {
    /// Listens to changes of keys, tags and namespaces, whoever makes them, this client included.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// use zerocache_client::ops::Change;
    ///
    /// let mut changes = cache.changes().key("price:7").tag("prices").await?;
    /// while let Some(change) = changes.next().await {
    ///     match change {
    ///         Change::Written { subject, version, .. } => println!("{subject:?} has {version}"),
    ///         Change::Gap => println!("read everything again"),
    ///         other => println!("{other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn changes(&self) -> Listen {
        Listen::new(self.clone())
    }
}

impl Engine {
    async fn listen(
        self: Arc<Self>,
        subjects: BTreeSet<Subject>,
        total_ms: u64,
    ) -> Result<Subscription, Error> {
        let budget = Budget::new(clock::mono(), total_ms);
        self.ready(total_ms).await?;
        let subscription = self.listeners.join(subjects.into_iter().collect());
        let left = Duration::from_millis(budget.remaining_ms(clock::mono()));
        let timeout = {
            // The caller's runtime, if it has one, need not keep time.
            let _home = self.runtime.enter();
            tokio::time::sleep(left)
        };
        let begun =
            match select(poll_fn(|context| subscription.queue.poll_begun(context)), pin!(timeout))
                .await
            {
                Either::Left((begun, _)) => begun,
                Either::Right(_) => return Err(self.unreachable(true)),
            };
        if begun.is_err() {
            self.counters.denied();
        }
        begun.map(|()| subscription)
    }
}
