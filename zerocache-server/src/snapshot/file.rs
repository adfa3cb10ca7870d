//! The place of a snapshot, and what an earlier life of the node left there.
//!
//! Invariant: a snapshot is used by one life only. It is moved aside before the node takes its first
//! write, so that no later start brings back what was deleted or replaced meanwhile.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use zerocache_core::{node::PersistedState, store::StoredItem, time::Now};

use super::{SnapshotError, read, write};

/// What is appended to the name of a snapshot that a life of the node has taken.
const TAKEN: &str = ".taken";

/// The snapshot file of a node.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    /// Whether there is one that was taken and not read.
    is_taken: AtomicBool,
}

impl SnapshotFile {
    /// The snapshot at `path`; what stands there is moved aside for this life. Blocks.
    ///
    /// A file that cannot be moved is not used, and reported.
    #[must_use]
    pub fn take(path: PathBuf) -> Self {
        let moved = fs::rename(&path, write::beside(&path, TAKEN));
        let is_taken = match moved {
            Ok(()) => {
                write::sync_directory(&path);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(path = %path.display(), "no snapshot found");
                false
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot move snapshot aside: not loaded");
                false
            }
        };
        Self { path, is_taken: AtomicBool::new(is_taken) }
    }

    /// Where the next snapshot is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an earlier life left something that this one has not read.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    /// Reads what was taken, as [`read`] does, and removes it. A file that cannot be used stays beside its
    /// place, and is never looked at again. Blocks.
    ///
    /// # Errors
    /// Those of [`read`]; [`SnapshotError::Missing`] when nothing was taken, or it was read before.
    pub fn read(
        &self,
        cluster: &str,
        now: Now,
        take: impl FnMut(Vec<StoredItem>),
    ) -> Result<PersistedState, SnapshotError> {
        if !self.is_taken.swap(false, Ordering::Relaxed) {
            return Err(SnapshotError::Missing);
        }
        let taken = write::beside(&self.path, TAKEN);
        let memory = read(&taken, cluster, now, take)?;
        // What stays is a file that nobody reads.
        let _stays = fs::remove_file(&taken);
        Ok(memory)
    }

    /// Puts what was taken back for the next life: this one has taken no write and read nothing. Blocks.
    pub fn put_back(&self) {
        if self.is_taken.swap(false, Ordering::Relaxed) {
            let _lost = fs::rename(write::beside(&self.path, TAKEN), &self.path);
        }
    }
}
