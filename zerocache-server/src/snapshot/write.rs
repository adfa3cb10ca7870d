//! Writes a snapshot to a temporary file that then replaces the old one: the file is always complete.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zerocache_core::{
    store::StoredItem,
    wire::{FetchedItem, Response},
};

use super::{BLOCK_BYTES, Checksum, Contents, Header, MAGIC, SnapshotError};

/// Writes a snapshot to `path`. Returns the number of values and tombstones. Blocks.
///
/// # Errors
/// The error of the system; the previous snapshot stays.
pub fn write<P>(path: &Path, contents: Contents<'_, P>) -> Result<u64, SnapshotError>
where
    P: Iterator<Item = Vec<StoredItem>>,
{
    let temporary = with_suffix(path, NEW);
    let written = write_to(&temporary, contents);
    if written.is_ok() {
        fs::rename(&temporary, path)?;
        sync_directory(path);
    } else {
        // An incomplete file is useless.
        let _already_gone = fs::remove_file(&temporary);
    }
    written
}

/// Checks that a snapshot can be written to `path` later: a file, in a directory that this process may write
/// to. Leaves no file behind. Blocks.
///
/// # Errors
/// The error of the system that a write would meet now.
pub fn check_writable(path: &Path) -> io::Result<()> {
    if path.is_dir() || path.file_name().is_none() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let temporary = with_suffix(path, NEW);
    create(&temporary)?;
    fs::remove_file(&temporary)
}

/// The mode of snapshots: only the user of the node reads what it caches.
const MODE: u32 = 0o600;

/// Creates a file, or empties it, that only this user may read.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    // It may have been there, with another mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// Lets only this user read a file that may be there with another mode.
pub(super) fn restrict(path: &Path) {
    // A file of somebody else stays as it is.
    let _best_effort = fs::set_permissions(path, Permissions::from_mode(MODE));
}

/// The suffix of the temporary file.
pub(super) const NEW: &str = ".new";

/// Returns `path` with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

fn write_to<P>(path: &Path, contents: Contents<'_, P>) -> Result<u64, SnapshotError>
where
    P: Iterator<Item = Vec<StoredItem>>,
{
    let mut out = Output { file: BufWriter::new(create(path)?), checksum: Checksum::default() };
    out.put(MAGIC)?;
    let Contents { cluster, now, retention_ms, ref state, .. } = contents;
    let header = Header::new(cluster, now, retention_ms, state);
    out.block(&serde_json::to_vec(&header).map_err(std::io::Error::other)?)?;
    let (mut count, mut items, mut bytes) = (0, Vec::new(), 0);
    for item in contents.shards.flatten() {
        let item = FetchedItem::of(item, contents.now.mono);
        bytes += item.payload_bytes() + 64;
        items.push(item);
        count += 1;
        if bytes >= BLOCK_BYTES || items.len() >= BLOCK_RECORDS {
            out.items(std::mem::take(&mut items))?;
            bytes = 0;
        }
    }
    if !items.is_empty() {
        out.items(items)?;
    }
    out.put(&0u32.to_le_bytes())?;
    let checksum = out.checksum.bytes();
    out.file.write_all(&checksum)?;
    let file = out.file.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    Ok(count)
}

/// Most values and tombstones of one block.
const BLOCK_RECORDS: usize = 4_096;

struct Output {
    file: BufWriter<File>,
    checksum: Checksum,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.checksum.0.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn block(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let length = u32::try_from(bytes.len()).map_err(|_| SnapshotError::UnknownFormat)?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    fn items(&mut self, items: Vec<FetchedItem>) -> Result<(), SnapshotError> {
        let message = Response::Items { items, covered: 0, more: None, tick: 0, from_second: 0 };
        self.block(&message.encode())
    }
}

/// Makes the new name last. Where directories cannot be opened as files, it does so by itself.
pub(super) fn sync_directory(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
        let _best_effort = directory.sync_all();
    }
}
