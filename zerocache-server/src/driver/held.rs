//! Responses that wait for the disk.

use zerocache_core::wire::Response;

use super::{
    NodeDriver,
    reply::{Reply, ReplyBatch},
};

/// A response that is sent when the disk has what its change erases.
pub(crate) struct HeldReply(Reply, Response);

impl NodeDriver {
    /// Returns a response that may be sent now. An acknowledgement waits until what changed before it cannot come
    /// back from disk.
    pub(super) fn hold(&self, to: Reply, response: Response) -> Option<(Reply, Response)> {
        let Some(disk) = &self.disk else { return Some((to, response)) };
        let mark = self.storage.disk_mark();
        if disk.has_written(mark) || !is_acknowledgement(&response) {
            return Some((to, response));
        }
        let HeldReply(to, response) = disk.hold(mark, HeldReply(to, response))?;
        Some((to, response))
    }

    /// Sends responses that were held back.
    pub(crate) fn send_held(&self, replies: Vec<HeldReply>) {
        let mut batch = ReplyBatch::new(&self.request_metrics);
        for HeldReply(to, response) in replies {
            batch.send(to, response);
        }
    }
}

/// Whether a response says that something was changed.
const fn is_acknowledgement(response: &Response) -> bool {
    matches!(response, Response::Written(_) | Response::Taken(_) | Response::Replicated(_))
}
