//! Snapshots: the entries and tombstones of a node in a file, so that a cluster that is stopped and started
//! as a whole is warm again.
//!
//! The file starts with [`MAGIC`], followed by blocks: a length of 4 bytes, little-endian, and that many
//! bytes. The first block is the [`Header`] as JSON, the others are messages with values and tombstones in
//! the encoding of the protocol. An empty block and the xxh3-128 of everything before it end the file.
//! Nothing of a file is used before all of it has been read and its checksum verified, and no file is used
//! by two incarnations of a node.

mod file;
mod persistence;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;
use zerocache_core::{
    node::PersistedState,
    time::Now,
    version::Incarnation,
    wire::{DecodeError, Lineage, SYNC_AGES_MAX, SyncAge},
};

use self::read::read;
pub use self::{
    file::SnapshotFile,
    persistence::{load_on_request, save},
    write::{check_writable, write},
};

/// The first bytes of a snapshot; the digits are the version of the format.
const MAGIC: &[u8; 8] = b"zcsnap01";

/// A block ends once it has this many bytes of keys and values.
const BLOCK_BYTES: usize = 1 << 20;

/// The largest block: a value of the largest size in the protocol, and its key.
const BLOCK_BYTES_MAX: usize = 300 << 20;

/// A snapshot that is further in the future is not used, in milliseconds.
const AHEAD_MS_MAX: u64 = 60_000;

/// The header of a snapshot. Field names are part of the format.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    cluster: String,
    /// The time of writing, in milliseconds since the Unix epoch.
    written_ms: u64,
    /// The retention of tombstones at that time, in milliseconds.
    retention_ms: u64,
    /// The incarnation that wrote the snapshot.
    #[serde(default)]
    node: u64,
    /// How long the node had had entries that no other node had, in milliseconds.
    lived_ms: u64,
    /// The node from which all its entries came, and how long that node had been in sync, in milliseconds.
    #[serde(default)]
    line: (u64, u64),
    /// The fields of the [`SyncAge`] of each other node: incarnation, age, life.
    ages: Vec<(u64, u64, u64)>,
    /// Whether the node kept the values of some keys only.
    #[serde(default)]
    is_placed: bool,
}

impl Header {
    fn state(&self, away_ms: u64) -> PersistedState {
        let age = |&(of, ms, lived_ms): &(u64, u64, u64)| SyncAge {
            node: Incarnation(of),
            age_ms: ms,
            lived_ms,
        };
        let ages = self.ages.iter().take(SYNC_AGES_MAX).map(age).collect();
        let &Self { node, lived_ms, line: (of, ms), retention_ms, is_placed, .. } = self;
        let (node, line) = (Incarnation(node), Lineage { origin: Incarnation(of), age_ms: ms });
        let (lineage, sync_ages) = (line, ages);
        PersistedState { node, lived_ms, lineage, away_ms, retention_ms, sync_ages, is_placed }
    }
}

/// The reason why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no snapshot.
    #[error("there is no snapshot")]
    Missing,
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not a snapshot, or has the format of another release.
    #[error("not a snapshot that this release can read")]
    UnknownFormat,
    /// The file is incomplete, or its checksum is wrong.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// An item cannot be decoded.
    #[error("damaged: {0}")]
    Undecodable(#[from] DecodeError),
    /// The snapshot belongs to another cluster.
    #[error("belongs to the cluster {0:?}")]
    OtherCluster(String),
    /// The snapshot is older than the retention of its tombstones.
    #[error("{age_ms} ms old, beyond the retention of tombstones of {retention_ms} ms")]
    TooOld {
        /// The age of the snapshot.
        age_ms: u64,
        /// The retention when it was written.
        retention_ms: u64,
    },
    /// The snapshot was written in the future.
    #[error("written {0} ms in the future")]
    FromTheFuture(u64),
}

/// The contents of a snapshot.
pub struct Contents<'a, P> {
    /// The cluster of the node.
    pub cluster: &'a str,
    /// The time of writing.
    pub now: Now,
    /// The retention of tombstones, in milliseconds.
    pub retention_ms: u64,
    /// The state of the node.
    pub state: PersistedState,
    /// Values and tombstones, shard by shard.
    pub shards: P,
}

/// A running checksum.
#[derive(Default)]
struct Checksum(Xxh3);

impl Checksum {
    fn bytes(&self) -> [u8; 16] {
        self.0.digest128().to_le_bytes()
    }
}
