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
    persistence::{corrected, load_on_request, save},
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
    /// How far the clock of the node was ahead of that of its machine, in milliseconds.
    #[serde(default)]
    clock_offset_ms: i64,
    /// Whether the node kept the values of some keys only.
    #[serde(default)]
    is_placed: bool,
    /// Whether the process goes on: values that are in memory alone are missing if it does not end in order.
    #[serde(default)]
    lacks_values: bool,
}

impl Header {
    fn new(cluster: &str, now: Now, retention_ms: u64, state: &PersistedState) -> Self {
        let ages = state.sync_ages.iter();
        Self {
            cluster: cluster.to_owned(),
            written_ms: now.wall_ms,
            retention_ms,
            node: state.node.0,
            lived_ms: state.lived_ms,
            line: (state.lineage.origin.0, state.lineage.age_ms),
            ages: ages.map(|age| (age.node.0, age.age_ms, age.lived_ms)).collect(),
            clock_offset_ms: state.clock_offset_ms,
            is_placed: state.is_placed,
            lacks_values: state.lacks_values,
        }
    }

    /// Returns how long ago it was written, if it is of this cluster and not from the future.
    fn age_ms(&self, cluster: &str, now: Now) -> Result<u64, SnapshotError> {
        if self.cluster != cluster {
            return Err(SnapshotError::OtherCluster(self.cluster.clone()));
        }
        let ahead_ms = self.written_ms.saturating_sub(now.wall_ms);
        if ahead_ms > AHEAD_MS_MAX {
            return Err(SnapshotError::FromTheFuture(ahead_ms));
        }
        Ok(now.wall_ms.saturating_sub(self.written_ms))
    }

    fn state(&self, away_ms: u64) -> PersistedState {
        let age = |&(of, ms, lived_ms): &(u64, u64, u64)| SyncAge {
            node: Incarnation(of),
            age_ms: ms,
            lived_ms,
        };
        let ages = self.ages.iter().take(SYNC_AGES_MAX).map(age).collect();
        let &Self { node, lived_ms, line: (of, age_ms), retention_ms, .. } = self;
        let &Self { clock_offset_ms, is_placed, lacks_values, .. } = self;
        PersistedState {
            node: Incarnation(node),
            lived_ms,
            lineage: Lineage { origin: Incarnation(of), age_ms },
            away_ms,
            retention_ms,
            sync_ages: ages,
            clock_offset_ms,
            is_placed,
            lacks_values,
        }
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

/// Encodes the state of a node whose entries are elsewhere.
pub fn encode_state(cluster: &str, now: Now, state: &PersistedState) -> Vec<u8> {
    let header = Header::new(cluster, now, state.retention_ms, state);
    serde_json::to_vec(&header).unwrap_or_default()
}

/// Decodes a state of [`encode_state`], of whatever age.
///
/// # Errors
/// The reason why it is not used.
pub fn decode_state(
    bytes: &[u8],
    cluster: &str,
    now: Now,
) -> Result<PersistedState, SnapshotError> {
    let header: Header =
        serde_json::from_slice(bytes).map_err(|_| SnapshotError::Damaged("invalid header"))?;
    let age_ms = header.age_ms(cluster, now)?;
    Ok(header.state(age_ms))
}

/// A running checksum.
#[derive(Default)]
struct Checksum(Xxh3);

impl Checksum {
    fn bytes(&self) -> [u8; 16] {
        self.0.digest128().to_le_bytes()
    }
}
