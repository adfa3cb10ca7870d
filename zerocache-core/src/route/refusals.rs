//! The effect of refusals on the directory: another node stands at the address, the node is overloaded, or
//! the value is too large for it.

use super::directory::Directory;
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{RefusalCode, Response},
};

/// An overloaded node is passed over for this long, in milliseconds: as long as one that fails, at least.
const RELIEVED_MS: u64 = 250;

/// The value size limit that a node reported is used for this long, in milliseconds: short enough for
/// an operator who raises the limit, and one value too large in that time costs nothing.
const VALUE_LIMIT_MS: u64 = 60_000;

impl Directory {
    /// Records a response from the address of `node`, with its round-trip time if that is known. Returns
    /// whether the response is from that node.
    pub fn record_response(
        &mut self,
        node: Incarnation,
        response: &Response,
        now: Instant,
        elapsed_us: Option<u64>,
    ) -> bool {
        let code = match response {
            Response::Refused(refusal) => Some(refusal.code),
            _ => None,
        };
        match code {
            Some(RefusalCode::WrongNode | RefusalCode::WrongCluster) => {
                self.node_replaced(node, now);
                return false;
            }
            // The time until an overload refusal does not measure the distance.
            Some(RefusalCode::Overloaded) => self.record_overload(node, now),
            _ => self.record_answer(node, now, elapsed_us),
        }
        true
    }

    /// Records that a node is overloaded: it is alive, and other nodes are asked for a while.
    pub(super) fn record_overload(&mut self, node: Incarnation, now: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.heard = now;
            entry.silent_since = None;
            entry.relieved_until = now.plus_ms(RELIEVED_MS);
        }
    }

    /// Records that a node refused a value of `bytes` as too large. `reported_max` is the limit that the
    /// node reported, or 0. The limit is used for a while, and for this incarnation of the node only.
    pub fn record_value_limit(
        &mut self,
        node: Incarnation,
        bytes: u64,
        reported_max: u64,
        now: Instant,
    ) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            // Without a reported limit, only the refused size is known to be too large.
            let known_max = entry.value_bytes_max.map_or(u64::MAX, |(bytes_max, _)| bytes_max);
            let below = known_max.min(bytes.saturating_sub(1));
            let bytes_max = if reported_max > 0 { reported_max } else { below };
            entry.value_bytes_max = Some((bytes_max, now.plus_ms(VALUE_LIMIT_MS)));
        }
    }
}
