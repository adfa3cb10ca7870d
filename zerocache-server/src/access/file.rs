//! The access file on disk, and its replacement.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use super::table::{AccessTable, FILE_BYTES_MAX, InvalidAccessFile};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// An access file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file says something that is not allowed.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidAccessFile,
    },
}

/// An access file, or none.
#[derive(Debug, Default)]
pub(super) struct AccessFile {
    path: Option<PathBuf>,
    table: RwLock<Arc<AccessTable>>,
    /// Times that the table was replaced.
    generation: AtomicU64,
    /// Times that the file could not be used.
    failures: AtomicU64,
    /// Held while the table is replaced.
    seen: Mutex<Seen>,
}

/// What was last seen of the file.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// The error that was logged.
    error: Option<String>,
}

/// Shows that a file was changed: its size, the time of its last change, its inode. The path is looked at,
/// and not an open file: Kubernetes exchanges links.
type Stamp = (u64, i64, i64, u64);

impl AccessFile {
    pub(super) fn load(path: PathBuf) -> Result<Self, AccessFileError> {
        let seen = Seen { stamp: stamp(&path), error: None };
        let table = RwLock::new(Arc::new(read(&path)?));
        Ok(Self { path: Some(path), table, seen: Mutex::new(seen), ..Self::default() })
    }

    pub(super) fn table(&self) -> Arc<AccessTable> {
        Arc::clone(&self.table.read())
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn replace(&self, table: AccessTable) {
        *self.table.write() = Arc::new(table);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Reads the file again, and uses its content if that is possible.
    pub(super) fn reload(&self) {
        let Some(path) = &self.path else { return };
        self.reload_locked(path, &mut self.seen.lock(), true);
    }

    /// `is_new`: somebody has changed the file, or asks for this.
    fn reload_locked(&self, path: &Path, seen: &mut Seen, is_new: bool) {
        // What changes from here on is seen the next time.
        seen.stamp = stamp(path);
        match read(path) {
            Ok(table) => {
                seen.error = None;
                let mut current = self.table.write();
                if **current != table {
                    *current = Arc::new(table);
                    self.generation.fetch_add(1, Ordering::Release);
                    tracing::info!(path = %path.display(), "access file reloaded");
                }
            }
            Err(error) => {
                let error = error.to_string();
                let is_other = seen.error.as_ref() != Some(&error);
                if is_new || is_other {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                if is_other {
                    tracing::error!(%error, "cannot reload the access file; what it said before stays in force");
                }
                seen.error = Some(error);
            }
        }
    }

    /// Waits until the table was replaced because the file has changed. Ends only then.
    pub(super) async fn changed(&self) {
        let before = self.generation();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
            if self.generation() != before {
                return;
            }
        }
    }

    /// Looks at the file once.
    pub(super) fn look(&self) {
        let Some(path) = &self.path else { return };
        let mut seen = self.seen.lock();
        let is_new = seen.stamp != stamp(path);
        // What could not be used is tried again: it may have been half written, or not readable.
        if is_new || seen.error.is_some() {
            self.reload_locked(path, &mut seen, is_new);
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
}

fn read(path: &Path) -> Result<AccessTable, AccessFileError> {
    let unreadable = |source| AccessFileError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    text.parse().map_err(|source| AccessFileError::Invalid { path: path.to_owned(), source })
}
