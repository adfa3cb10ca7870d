//! Versions whose values other nodes keep.

use super::Shard;
use crate::{
    key::KeyHash,
    store::{backend::Pages, outcome::ApplyOutcome},
    version::Version,
};

impl<P: Pages> Shard<P> {
    /// Merges the version of a write whose value others keep.
    pub fn apply_version(&mut self, hash: KeyHash, version: Version) -> ApplyOutcome {
        let index = self.entries.find_hash(hash, b"");
        let known = self.version_at(index, hash);
        if let Some(outcome) = self.rejection(known, version) {
            return outcome;
        }
        self.update_digests(hash, known, version);
        self.replace_with_tombstone(hash, index, version);
        ApplyOutcome::Applied
    }

    /// Drops a value of this version and keeps the version. Returns whether it was held.
    pub fn displace(&mut self, hash: KeyHash, version: Version) -> bool {
        let Some(index) = self.entries.find_hash(hash, b"") else { return false };
        let is_held = self.entries.slot(index).version == version;
        if is_held {
            self.drop_entry(index);
        }
        is_held
    }
}
