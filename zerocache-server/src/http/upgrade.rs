//! Connections that change to another protocol.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::io::GuardedIo;

/// The change of one connection to another protocol, under way.
pub type Upgrade = OnUpgrade;

/// The stream of a connection once its answer, 101, is written, and what was read beyond the request.
/// None when the connection ended instead.
///
/// The stream goes on to cut off a client that does not read, and keeps its place under the cap on
/// connections.
pub async fn upgraded(upgrade: Upgrade) -> Option<(GuardedIo, Bytes)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<GuardedIo>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}
