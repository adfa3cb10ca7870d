//! What a node's refusals say of it: that another one stands there, that it has too much to do, or how large
//! a value it takes.

use super::directory::Directory;
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{RefusalCode, Response},
};

/// A node that says that it has too much to do is passed over for this long, in milliseconds: as long as one
/// that fails, at least.
const RELIEVED_MS: u64 = 250;

/// What a node said of the values that it takes is believed for this long, in milliseconds: short enough for
/// somebody who raises the limit, and one value too large in that time costs nothing.
const LIMIT_BELIEVED_MS: u64 = 60_000;

impl Directory {
    /// A response came from where `node` was asked, with its round-trip time if that is known. Returns
    /// whether it is that node's.
    pub fn responded(
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
                self.replaced(node, now);
                return false;
            }
            // How soon it says so is no measure of its distance.
            Some(RefusalCode::Overloaded) => self.overloaded(node, now),
            _ => self.answered(node, now, elapsed_us),
        }
        true
    }

    /// A node has too much to do: it is alive, and others have its turns for a while.
    pub(super) fn overloaded(&mut self, node: Incarnation, now: Instant) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.heard = now;
            known.silent_since = None;
            known.relieved_until = now.plus_ms(RELIEVED_MS);
        }
    }

    /// A node refused a value of `bytes` as too large, and told how many it takes, or 0. That is believed
    /// for a while, and of this life of the node.
    pub fn refused_value(&mut self, node: Incarnation, bytes: u64, told: u64, now: Instant) {
        if let Some(known) = self.nodes.get_mut(&node) {
            // Of one that does not tell nothing is known but that it does not take so many.
            let known_max = known.value_bytes_max.map_or(u64::MAX, |(bytes_max, _)| bytes_max);
            let least = known_max.min(bytes.saturating_sub(1));
            let bytes_max = if told > 0 { told } else { least };
            known.value_bytes_max = Some((bytes_max, now.plus_ms(LIMIT_BELIEVED_MS)));
        }
    }
}
