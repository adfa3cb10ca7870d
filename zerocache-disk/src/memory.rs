//! A directory in memory, with faults: for tests and simulations.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::directory::{Directory, SegmentFile, Space};

/// A directory in memory. Clones share it, so that it outlives a log that is dropped as if its process had died.
///
/// Nothing in it depends on time or chance.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    state: Arc<Mutex<State>>,
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All that was written: the process was killed.
    Killed,
    /// Of each file what was synced, and up to `torn` bytes of what was written behind it: the machine lost power.
    PowerLoss {
        /// The most bytes that each file keeps of what was not synced.
        torn: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    full: bool,
    failing: bool,
    /// The bytes that can still be written before the process dies.
    dies_after: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// So many bytes at the start survive a power failure.
    synced: usize,
}

impl MemoryDirectory {
    /// Creates an empty directory without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a crash and ends the faults. Drop the log first.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.lock();
        (state.full, state.failing, state.dies_after) = (false, false, None);
        let Crash::PowerLoss { torn } = crash else { return };
        for file in state.files.values() {
            let mut file = guard(file);
            let kept = file.synced.saturating_add(usize::try_from(torn).unwrap_or(usize::MAX));
            file.bytes.truncate(kept);
            file.synced = file.bytes.len();
        }
    }

    /// Inverts a bit of each byte that is at `offset` in the file `name`. Returns whether there is such a byte.
    pub fn flip(&self, name: &str, offset: u64) -> bool {
        let state = self.lock();
        let Some(file) = state.files.get(name) else { return false };
        let mut file = guard(file);
        let byte = usize::try_from(offset).ok().and_then(|offset| file.bytes.get_mut(offset));
        byte.map(|byte| *byte ^= 1 << (offset % 8)).is_some()
    }

    /// Refuses to let files grow, or lets them again: a file system without room.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Fails every operation, or none any more: a broken device.
    pub fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
    }

    /// Writes `bytes` more bytes, then cuts a write and fails every operation until the next [`crash`](Self::crash):
    /// a process that is killed while it writes.
    pub fn die_after(&self, bytes: u64) {
        self.lock().dies_after = Some(bytes);
    }

    /// Limits the bytes of all files; [`free`](Directory::free) tells of the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// The bytes of the file `name`.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.get(name).map(|file| guard(file).bytes.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        guard(&self.state)
    }

    fn working(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.failing { Err(io::Error::other("the device fails")) } else { Ok(state) }
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.files.values().map(|file| guard(file).bytes.len() as u64).sum()
    }

    /// Refuses to grow by `bytes` if there is no room.
    fn grow(&self, bytes: u64) -> io::Result<()> {
        let beyond = self.capacity.is_some_and(|most| self.bytes() + bytes > most);
        if bytes > 0 && (self.full || beyond) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// How much of a write of `bytes` is written before the process dies.
    fn written(&mut self, bytes: usize) -> usize {
        let Some(left) = &mut self.dies_after else { return bytes };
        let written = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes);
        *left -= written as u64;
        self.failing = written < bytes;
        written
    }
}

impl Directory for MemoryDirectory {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.working()?.files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.working()?;
        state.grow(1)?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::<Mutex<Content>>::default();
        state.files.insert(name.to_owned(), Arc::clone(&file));
        Ok(MemoryFile { directory: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let state = self.working()?;
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile { directory: self.clone(), file: Arc::clone(file) })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.working()?.files.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut state = self.working()?;
        state.grow(content.len() as u64)?;
        if state.written(content.len()) < content.len() {
            return Err(io::Error::other("the process died"));
        }
        let content = Content { bytes: content.to_vec(), synced: content.len() };
        state.files.insert(name.to_owned(), Arc::new(Mutex::new(content)));
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.working()?;
        Ok(guard(state.files.get(name).ok_or(io::ErrorKind::NotFound)?).bytes.clone())
    }

    fn free(&self) -> io::Result<Option<Space>> {
        let state = self.working()?;
        Ok(state.capacity.map(|total| Space { free: total.saturating_sub(state.bytes()), total }))
    }
}

/// A file of a [`MemoryDirectory`].
#[derive(Debug)]
pub struct MemoryFile {
    directory: MemoryDirectory,
    file: Arc<Mutex<Content>>,
}

impl SegmentFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.directory.working()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let len = guard(&self.file).bytes.len();
        state.grow((start + bytes.len()).saturating_sub(len) as u64)?;
        let written = state.written(bytes.len());
        let mut file = guard(&self.file);
        if file.bytes.len() < start + written {
            file.bytes.resize(start + written, 0);
        }
        file.bytes[start..start + written].copy_from_slice(&bytes[..written]);
        file.synced = file.synced.min(start);
        if written < bytes.len() {
            return Err(io::Error::other("the process died"));
        }
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let _working = self.directory.working()?;
        let file = guard(&self.file);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(into.len());
        let from = end.and_then(|end| file.bytes.get(start..end));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _working = self.directory.working()?;
        Ok(guard(&self.file).bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _working = self.directory.working()?;
        let mut file = guard(&self.file);
        file.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let _working = self.directory.working()?;
        let mut file = guard(&self.file);
        file.synced = file.bytes.len();
        Ok(())
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
