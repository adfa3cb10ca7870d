//! Looks ahead in the requests that were read: memory is loaded for later reads while earlier ones are answered.
//!
//! Without it a node spends half of the time of a GET waiting for memory, one load after the other.

use zerocache_core::{key::KeyHash, wire::RequestMessage};
use zerocache_net::transport::framed::FrameReader;

use crate::reads::EntryReader;

/// How many requests ahead the slot of an entry is loaded; a power of two. The first load of a request takes about as long
/// as three or four requests do; more requests than a processor has loads in flight gain nothing.
const SLOTS_AHEAD: usize = 16;

/// How many requests ahead key and value are loaded: the slot must have arrived.
const BLOCKS_AHEAD: usize = 8;

/// The keys of the next requests.
#[derive(Default)]
pub(super) struct LookAhead {
    /// A ring; none for a request that is no read.
    hashes: [Option<KeyHash>; SLOTS_AHEAD],
    first: usize,
    len: usize,
    /// The number of requests, from the first on, whose blocks are being loaded.
    loaded: usize,
}

impl LookAhead {
    /// Prepares for the requests that are at hand, before the next one is taken from `reader`.
    #[inline]
    pub(super) fn prepare(&mut self, reader: &mut FrameReader, entries: &EntryReader) {
        while self.len < SLOTS_AHEAD {
            let Some(message) = reader.peek() else { break };
            let hash = RequestMessage::peek_get(message).map(KeyHash::of);
            // The next request comes too soon for a hint.
            if let Some(hash) = hash.filter(|_| self.len > 0) {
                entries.prefetch_slot(hash);
            }
            self.hashes[(self.first + self.len) % SLOTS_AHEAD] = hash;
            self.len += 1;
        }
        let until = self.len.min(BLOCKS_AHEAD);
        for at in self.loaded.max(1)..until {
            if let Some(hash) = self.hashes[(self.first + at) % SLOTS_AHEAD] {
                entries.prefetch_block(hash);
            }
        }
        self.loaded = until;
    }

    /// Notes that the next request was taken.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.first = (self.first + 1) % SLOTS_AHEAD;
        self.len = self.len.saturating_sub(1);
        self.loaded = self.loaded.saturating_sub(1);
    }
}
