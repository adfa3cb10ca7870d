//! Purges: the end of all entries with a tag, of a function, of a namespace, or of everything.

use std::future::{IntoFuture, ready};
use std::time::Duration;

use futures_util::future::join_all;
use zerocache_core::purge::{HOLD_MS_MAX, PurgeMode, PurgeTarget};
use zerocache_net::clock;

use super::BoxFuture;
use super::flight;
use super::writing;
use crate::client::PurgeRequest;
use crate::ops::{Location, Locations};
use crate::{Ack, Error, Version, Written, ZerocacheClient, wait};

/// How long a purge waits for each node, unless it has a deadline.
const EACH_NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first pause between two questions who has a purge; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);

const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A purge; from [`ZerocacheClient::invalidate_tag`] and its siblings. Nothing happens until it is awaited, or
/// [`wait`](Self::wait)ed for; once it has begun, it continues without its caller.
///
/// A purge ends all entries that it names and that have a lower version: those that nodes hold, and those that
/// reach them later. No read that begins at a node after that node acknowledged the purge returns one of them.
#[must_use = "a purge does nothing unless it is awaited"]
pub struct Purge {
    client: ZerocacheClient,
    target: Result<PurgeTarget, Error>,
    mode: PurgeMode,
    hold: Duration,
    ack: Ack,
    replayed: Option<Version>,
    deadline: Option<Duration>,
}

/// Purges of several tags; from [`ZerocacheClient::invalidate_tags`].
#[must_use = "a purge does nothing unless it is awaited"]
pub struct PurgeMany(Vec<Purge>);

impl Purge {
    pub(super) fn new(client: &ZerocacheClient, target: Result<PurgeTarget, Error>) -> Self {
        Self {
            client: client.clone(),
            target,
            mode: PurgeMode::Hard,
            hold: Duration::ZERO,
            ack: Ack::Region,
            replayed: None,
            deadline: None,
        }
    }

    /// Ends the fresh time of the entries only: those with stale times may be served stale, to whoever accepts
    /// that, until they are computed again. Entries without stale times end.
    pub fn soft(mut self) -> Self {
        self.mode = PurgeMode::Soft;
        self
    }

    /// Which nodes must have the purge before it completes; default [`Ack::Region`].
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Also ends what is written within this time after the purge, at most 11 s (more is an error): values that were read from an
    /// origin that changes a little later, or written by nodes whose clocks are ahead. They are returned to those
    /// who computed them, and not kept. Needs a permission that is not limited to some keys.
    pub fn hold(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// Repeats the purge that got this version: entries written since then live on. A version older than the
    /// retention (an hour) is refused.
    pub fn replay(mut self, version: Version) -> Self {
        self.replayed = Some(version);
        self
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Waits until each known node has the purge, for 2 s or the deadline, and says which have it.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// let purged = cache.invalidate_tag("file:Big.djvu").each_node().await?;
    /// for node in purged.lacking() {
    ///     println!("{:?} in {} does not have it yet", node.address, node.region);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn each_node(self) -> PurgeEachNode {
        PurgeEachNode(self)
    }

    /// Purges now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it: the tag is not allowed, the permission is missing, or no node was reached.
    pub fn wait(self) -> Result<Written, Error> {
        wait::block_on(self.into_future())
    }

    /// Begins. What is being computed or stored in this process is not kept, as far as it may be of the target.
    fn start(self) -> BoxFuture<Result<Written, Error>> {
        let Self { client, target, mode, hold, ack, replayed, deadline } = self;
        let hold_ms = u64::try_from(hold.as_millis()).ok().filter(|ms| *ms <= HOLD_MS_MAX);
        let hold_ms = hold_ms.ok_or_else(|| {
            Error::Refused(format!("a purge holds for at most {} s", HOLD_MS_MAX / 1_000))
        });
        let (target, hold_ms) = match target.and_then(|target| Ok((target, hold_ms?))) {
            Ok(valid) => valid,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let group = client.memo_counters().flight_group();
        let writes = flight::invalidate_all(group, &target);
        let owned = client.clone();
        Box::pin(client.continue_in_background(async move {
            writing::wait_for_writes(&owned, writes).await;
            let request = PurgeRequest { target, mode, hold_ms, ack, replayed };
            let target = request.target.clone();
            let purged = owned.raw_purge(request, deadline).await;
            flight::close_all_after_purge(group, &target);
            purged
        }))
    }
}

impl IntoFuture for Purge {
    type Output = Result<Written, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.start()
    }
}

/// A purge that waits for each node; from [`Purge::each_node`].
#[must_use = "a purge does nothing unless it is awaited"]
pub struct PurgeEachNode(Purge);

/// Which nodes have a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgedNodes {
    /// The outcome of the purge.
    pub written: Written,
    /// Every known node.
    pub nodes: Locations,
}

impl PurgedNodes {
    /// The nodes that do not have the purge yet, or did not say. They get it as any write.
    pub fn lacking(&self) -> impl Iterator<Item = &Location> {
        let version = self.written.version;
        self.nodes.iter().filter(move |node| version.is_none_or(|version| !node.has(version)))
    }
}

impl PurgeEachNode {
    /// Purges now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<PurgedNodes, Error> {
        wait::block_on(self.into_future())
    }
}

/// An error where the purge, or the question who has it, fails: the purge may be done then.
impl IntoFuture for PurgeEachNode {
    type Output = Result<PurgedNodes, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self(purge) = self;
        let (client, mode, within) = (purge.client.clone(), purge.mode, purge.deadline);
        let key = purge.target.as_ref().ok().map(|target| target.key(mode));
        let purged = purge.start();
        Box::pin(async move {
            let deadline = clock::elapsed() + within.unwrap_or(EACH_NODE_TIMEOUT);
            let written = purged.await?;
            let key = key.ok_or(Error::Unreachable { timed_out: false })?;
            let mut pause = PAUSE_MIN;
            loop {
                let nodes = client.locate_reserved(key.clone()).await?;
                let purged = PurgedNodes { written, nodes };
                if purged.lacking().next().is_none() || clock::elapsed() + pause >= deadline {
                    return Ok(purged);
                }
                client.sleep(pause).await;
                pause = PAUSE_MAX.min(2 * pause);
            }
        })
    }
}

impl PurgeMany {
    fn each(self, change: impl Fn(Purge) -> Purge) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }

    /// As [`Purge::soft`].
    pub fn soft(self) -> Self {
        self.each(Purge::soft)
    }

    /// As [`Purge::ack`].
    pub fn ack(self, ack: Ack) -> Self {
        self.each(|purge| purge.ack(ack))
    }

    /// As [`Purge::hold`].
    pub fn hold(self, time: Duration) -> Self {
        self.each(|purge| purge.hold(time))
    }

    /// As [`Purge::deadline`].
    pub fn deadline(self, deadline: Duration) -> Self {
        self.each(|purge| purge.deadline(deadline))
    }

    /// As [`Purge::wait`], for all tags.
    pub fn wait(self) -> Vec<Result<Written, Error>> {
        wait::block_on(self.into_future())
    }
}

impl IntoFuture for PurgeMany {
    /// The outcome of each tag, in their order.
    type Output = Vec<Result<Written, Error>>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(join_all(self.0.into_iter().map(Purge::start)))
    }
}

impl ZerocacheClient {
    /// Ends all entries with a tag, of whatever writer, in all regions.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// cache.put("thumb/220/Big.djvu", "...", 3_600).tags(["file:Big.djvu"]).await?;
    /// cache.invalidate_tag("file:Big.djvu").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn invalidate_tag(&self, tag: impl AsRef<str>) -> Purge {
        Purge::new(self, PurgeTarget::tag(tag.as_ref()).map_err(Error::from))
    }

    /// Ends all entries with any of these tags. The purges run beside each other, and their outcomes come in the
    /// order of the tags.
    pub fn invalidate_tags<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> PurgeMany {
        PurgeMany(tags.into_iter().map(|tag| self.invalidate_tag(tag)).collect())
    }

    /// Ends all memoized results of clients with this namespace, such as [`namespace`](Self::namespace) of this one;
    /// `""` for clients without one.
    pub fn invalidate_namespace(&self, namespace: impl AsRef<str>) -> Purge {
        let target = PurgeTarget::namespace(namespace.as_ref());
        Purge::new(self, target.map_err(|error| Error::Refused(error.to_string())))
    }

    /// Ends all entries of the cluster.
    pub fn invalidate_everything(&self) -> Purge {
        Purge::new(self, Ok(PurgeTarget::Everything))
    }
}
