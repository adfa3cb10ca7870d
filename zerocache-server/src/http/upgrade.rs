//! Connections that switch to another protocol.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::accept::Accepted;
use super::io::GuardedIo;

/// A pending switch of one connection to another protocol.
pub type Upgrade = OnUpgrade;

/// Returns the stream of a connection once its 101 response is written, and the bytes read beyond the
/// request; none when the connection ended instead.
///
/// The stream still disconnects a client that does not read, and keeps its permit under the cap on
/// connections.
pub async fn upgraded(upgrade: Upgrade) -> Option<(GuardedIo<Accepted>, Bytes)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<GuardedIo<Accepted>>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}
