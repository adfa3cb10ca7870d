//! Writing a snapshot: beside its place, then moved there, so that there is always a whole one or none.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use zerocache_core::{
    store::StoredItem,
    wire::{FetchedItem, Response},
};

use super::{BLOCK_BYTES, Contents, Header, MAGIC, SnapshotError, Sum};

/// Writes a snapshot to `path`; returns how many entries and traces it holds. Blocks.
///
/// # Errors
/// When the file cannot be written; what was there before stays.
pub fn write<P>(path: &Path, contents: Contents<'_, P>) -> Result<u64, SnapshotError>
where
    P: Iterator<Item = Vec<StoredItem>>,
{
    let beside = beside(path, NEW);
    let written = write_to(&beside, contents);
    if written.is_ok() {
        fs::rename(&beside, path)?;
        sync_directory(path);
    } else {
        // Half a file is of no use to anybody.
        let _gone_already = fs::remove_file(&beside);
    }
    written
}

/// What is appended to the name while a snapshot is written.
pub(super) const NEW: &str = ".new";

/// A name in the same directory: that of `path` with `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

fn write_to<P>(path: &Path, contents: Contents<'_, P>) -> Result<u64, SnapshotError>
where
    P: Iterator<Item = Vec<StoredItem>>,
{
    let mut out = Output { file: BufWriter::new(File::create(path)?), sum: Sum::default() };
    out.put(MAGIC)?;
    let ages = contents.memory.sync_ages.iter();
    let header = Header {
        cluster: contents.cluster.to_owned(),
        written_ms: contents.now.wall_ms,
        retention_ms: contents.retention_ms,
        node: contents.memory.node.0,
        lived_ms: contents.memory.lived_ms,
        line: (contents.memory.lineage.origin.0, contents.memory.lineage.age_ms),
        ages: ages.map(|age| (age.node.0, age.age_ms, age.lived_ms)).collect(),
    };
    out.block(&serde_json::to_vec(&header).map_err(std::io::Error::other)?)?;
    let (mut count, mut items, mut bytes) = (0, Vec::new(), 0);
    for known in contents.parts.flatten() {
        let item = FetchedItem::of(known, contents.now.mono);
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
    let sum = out.sum.bytes();
    out.file.write_all(&sum)?;
    let file = out.file.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    Ok(count)
}

/// Most values and traces of one block.
const BLOCK_RECORDS: usize = 4_096;

struct Output {
    file: BufWriter<File>,
    sum: Sum,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sum.0.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn block(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let length = u32::try_from(bytes.len()).map_err(|_| SnapshotError::Foreign)?;
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
