//! A directory of the system.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statvfs};

use crate::{
    directory::{Directory, SegmentFile, Space},
    error::OpenError,
};

/// A directory of the system, which no other process opens meanwhile.
#[derive(Debug)]
pub struct SystemDirectory {
    path: PathBuf,
    /// Flushes names of files to the disk.
    handle: File,
    /// Locked as long as it is open.
    _lock: File,
}

impl SystemDirectory {
    /// Opens the directory at `path`, which is created if there is none, and locks it.
    ///
    /// # Errors
    /// [`InUse`](OpenError::InUse), [`NotDirectory`](OpenError::NotDirectory) or
    /// [`NotWritable`](OpenError::NotWritable).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::NotADirectory => OpenError::NotDirectory(path.clone()),
            _ => OpenError::NotWritable { path: path.clone(), source },
        };
        if path.exists() && !path.is_dir() {
            return Err(OpenError::NotDirectory(path));
        }
        fs::create_dir_all(&path).map_err(refused)?;
        let handle = File::open(&path).map_err(refused)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(refused)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, handle, _lock: lock }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(OpenError::InUse(path)),
            Err(error) => Err(refused(error.into())),
        }
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Directory for SystemDirectory {
    type File = SystemFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().into_string().ok()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().flatten().collect())
    }

    fn create(&self, name: &str) -> io::Result<SystemFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).open(self.path.join(name)).map(SystemFile)
    }

    fn open(&self, name: &str) -> io::Result<SystemFile> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name)).map(SystemFile)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        // What was removed after it must not be gone while it is back.
        self.handle.sync_all()
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        let written = file.write_all_at(content, 0).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, self.path.join(name))) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.handle.sync_all()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn free(&self) -> io::Result<Option<Space>> {
        let all = statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(all.f_frsize);
        Ok(Some(Space { free: bytes(all.f_bavail), total: bytes(all.f_blocks) }))
    }
}

/// A file of a [`SystemDirectory`].
#[derive(Debug)]
pub struct SystemFile(File);

impl SegmentFile for SystemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
