//! What a log needs of a file system: a seam for directories of the system and for those in memory.

use std::io;

/// The room of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// The files of one log. Dropping it releases them for another process.
pub trait Directory: Send + Sync + 'static {
    /// A file of this directory.
    type File: SegmentFile;

    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file that does not exist yet, to be read and written.
    ///
    /// # Errors
    /// The file exists or cannot be created.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file to be read and written.
    ///
    /// # Errors
    /// The file cannot be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file, durably. Those who have opened it can still read it.
    ///
    /// # Errors
    /// The file cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Creates a file or replaces all of it, atomically and durably.
    ///
    /// # Errors
    /// The file has its former content, or none if there was none.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// The content of a small file.
    ///
    /// # Errors
    /// The file cannot be read; [`NotFound`](io::ErrorKind::NotFound) if there is none.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// The room of the file system, if it can tell.
    ///
    /// # Errors
    /// The file system cannot be asked.
    fn free(&self) -> io::Result<Option<Space>>;
}

/// A file of a log. Threads read it while one writes.
pub trait SegmentFile: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Any part of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// The file cannot be read; [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if it ends before.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// # Errors
    /// The file system cannot be asked.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The file system cannot be asked.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The file is as before.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns when what was written would survive a power failure, as `fdatasync` does.
    ///
    /// # Errors
    /// Any part of what was written may be lost.
    fn sync(&self) -> io::Result<()>;
}
