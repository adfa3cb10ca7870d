//! The snapshot file, and the snapshot that an earlier incarnation of the node left there.
//!
//! Invariant: a snapshot is used by one incarnation only. It is moved aside before the node accepts its
//! first write, so that no later start restores what was deleted or replaced meanwhile.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use zerocache_core::{node::PersistedState, store::StoredItem, time::Now};

use super::{SnapshotError, read, write};

/// The suffix of a snapshot that an incarnation of the node has taken.
const TAKEN: &str = ".taken";

/// The snapshot file of a node.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    /// A snapshot was taken and has not been read.
    is_taken: AtomicBool,
}

impl SnapshotFile {
    /// Takes the snapshot at `path`: moves it aside for this incarnation. Blocks.
    ///
    /// A file that cannot be moved is logged and not used.
    #[must_use]
    pub fn take(path: PathBuf) -> Self {
        let moved = fs::rename(&path, write::with_suffix(&path, TAKEN));
        let is_taken = match moved {
            Ok(()) => {
                write::restrict(&write::with_suffix(&path, TAKEN));
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

    /// Returns the path of the next snapshot.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether an earlier incarnation left a snapshot that this one has not read.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    /// Reads the snapshot that was taken, as [`read`] does, and removes it. A file that cannot be used stays
    /// under its new name and is never read again. Blocks.
    ///
    /// # Errors
    /// The errors of [`read`]; [`SnapshotError::Missing`] when no snapshot was taken, or it was read before.
    pub fn read(
        &self,
        cluster: &str,
        now: Now,
        on_items: impl FnMut(Vec<StoredItem>),
    ) -> Result<PersistedState, SnapshotError> {
        if !self.is_taken.swap(false, Ordering::Relaxed) {
            return Err(SnapshotError::Missing);
        }
        let taken = write::with_suffix(&self.path, TAKEN);
        let state = read(&taken, cluster, now, on_items)?;
        // A file that stays is never read again.
        let _removed = fs::remove_file(&taken);
        Ok(state)
    }

    /// Puts the snapshot back for the next incarnation: this one accepted no write and read nothing. Blocks.
    pub fn put_back(&self) {
        if self.is_taken.swap(false, Ordering::Relaxed) {
            let _renamed = fs::rename(write::with_suffix(&self.path, TAKEN), &self.path);
        }
    }
}
