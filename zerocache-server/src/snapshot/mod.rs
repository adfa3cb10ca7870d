//! The snapshot: what a node knows, in a file, so that a cluster that is stopped and started whole is
//! warm again.
//!
//! The file begins with [`MAGIC`], then come blocks: a length of 4 bytes, little-endian, and that many
//! bytes. The first is the [`Header`] as JSON, the others are messages with values and traces, in the
//! encoding of the protocol. A block of no bytes and the xxh3-128 of everything before it end the file.
//! Nothing of a file is used before all of it has been read and its sum found right, and nothing is used
//! by two lives of a node.

mod file;
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
pub use self::{file::SnapshotFile, write::write};

/// The first bytes of a snapshot; the digits are the version of its form.
const MAGIC: &[u8; 8] = b"zcsnap01";

/// A block is closed once it carries this many bytes of keys and values.
const BLOCK_BYTES: usize = 1 << 20;

/// The largest block: a value of the protocol's largest size and its key.
const BLOCK_BYTES_MAX: usize = 300 << 20;

/// A snapshot from this far in the future is not believed, in milliseconds.
const AHEAD_MS_MAX: u64 = 60_000;

/// What a snapshot says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    cluster: String,
    /// When it was written, in milliseconds since the Unix epoch.
    written_ms: u64,
    /// How long traces were kept then, in milliseconds.
    retention_ms: u64,
    /// Which life of the node it was.
    #[serde(default)]
    node: u64,
    /// For how long it had known what nobody else did, in milliseconds.
    lived_ms: u64,
    /// The node from which all that it knew came, and for how long that was in sync, in milliseconds.
    #[serde(default)]
    line: (u64, u64),
    /// Incarnation, age and life of others, as [`SyncAge`] has them.
    ages: Vec<(u64, u64, u64)>,
}

impl Header {
    fn memory(&self, away_ms: u64) -> PersistedState {
        let age = |&(of, ms, lived_ms): &(u64, u64, u64)| SyncAge {
            node: Incarnation(of),
            age_ms: ms,
            lived_ms,
        };
        let ages = self.ages.iter().take(SYNC_AGES_MAX).map(age).collect();
        let &Self { node, lived_ms, line: (of, ms), retention_ms, .. } = self;
        let (node, line) = (Incarnation(node), Lineage { origin: Incarnation(of), age_ms: ms });
        PersistedState { node, lived_ms, lineage: line, away_ms, retention_ms, sync_ages: ages }
    }
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no snapshot, or one of another release.
    #[error("it is not a snapshot that this release can read")]
    Foreign,
    /// It ends early, or its sum is wrong.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// What it holds cannot be decoded.
    #[error("it is damaged: {0}")]
    Undecodable(#[from] DecodeError),
    /// It is of another cluster.
    #[error("it is of the cluster {0:?}")]
    OtherCluster(String),
    /// It is older than traces were kept.
    #[error("it is {age_ms} ms old; deletes since {retention_ms} ms are remembered")]
    TooOld {
        /// Its age.
        age_ms: u64,
        /// The retention when it was written.
        retention_ms: u64,
    },
    /// It was written in the future.
    #[error("it was written {0} ms in the future")]
    FromTheFuture(u64),
}

/// What is written, besides what the parts of the store hold.
pub struct Contents<'a, P> {
    /// The cluster.
    pub cluster: &'a str,
    /// The moment.
    pub now: Now,
    /// How long traces are kept, in milliseconds.
    pub retention_ms: u64,
    /// What the node knows of its own knowledge.
    pub memory: PersistedState,
    /// What is known, part by part.
    pub parts: P,
}

/// A sum over all bytes that pass.
#[derive(Default)]
struct Sum(Xxh3);

impl Sum {
    fn bytes(&self) -> [u8; 16] {
        self.0.digest128().to_le_bytes()
    }
}
