//! Reads a snapshot twice: to verify it, and to use it.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use bytes::Bytes;
use zerocache_core::{
    node::PersistedState,
    store::{RETENTION_MS, StoredItem},
    time::Now,
    wire::Response,
};

use super::{BLOCK_BYTES_MAX, Checksum, Header, MAGIC, SnapshotError};

/// Reads the snapshot at `path`: passes its items to `on_items`, block by block, and returns the state of
/// the node. Blocks.
///
/// # Errors
/// The reason why the snapshot is not used. Only a file that changes between the two passes can fail after
/// items were passed on.
pub fn read(
    path: &Path,
    cluster: &str,
    now: Now,
    mut on_items: impl FnMut(Vec<StoredItem>),
) -> Result<PersistedState, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SnapshotError::Missing);
        }
        Err(error) => return Err(error.into()),
    };
    let mut input = Input { file: BufReader::new(file), checksum: Checksum::default() };
    let header = input.header()?;
    let age_ms = header.age_ms(cluster, now)?;
    // The store keeps tombstones no longer, whatever the header says.
    let retention_ms = header.retention_ms.min(RETENTION_MS);
    if age_ms > retention_ms {
        return Err(SnapshotError::TooOld { age_ms, retention_ms });
    }
    while let Some(block) = input.block()? {
        decode(block, 0)?;
    }
    input.check_end()?;
    input.rewind()?;
    input.header()?;
    while let Some(block) = input.block()? {
        on_items(
            decode(block, age_ms)?.into_iter().map(|item| item.into_stored(now.mono)).collect(),
        );
    }
    Ok(header.state(age_ms))
}

fn decode(
    block: Bytes,
    age_ms: u64,
) -> Result<Vec<zerocache_core::wire::FetchedItem>, SnapshotError> {
    match Response::decode(block)?.delayed_by(age_ms) {
        Response::Items { items, .. } => Ok(items),
        _ => Err(SnapshotError::Damaged("unexpected message")),
    }
}

struct Input {
    file: BufReader<File>,
    checksum: Checksum,
}

impl Input {
    fn header(&mut self) -> Result<Header, SnapshotError> {
        let magic: [u8; 8] = self.get().map_err(|_| SnapshotError::UnknownFormat)?;
        if magic != *MAGIC {
            return Err(SnapshotError::UnknownFormat);
        }
        let header = self.block()?.ok_or(SnapshotError::Damaged("no header"))?;
        serde_json::from_slice(&header).map_err(|_| SnapshotError::Damaged("invalid header"))
    }

    /// Returns the next block; none at the end.
    fn block(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let length = u32::from_le_bytes(self.get()?) as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > BLOCK_BYTES_MAX {
            return Err(SnapshotError::Damaged("block too large"));
        }
        // Allocates for the bytes that are there, not for the announced length.
        let mut block = Vec::new();
        (&mut self.file).take(length as u64).read_to_end(&mut block)?;
        if block.len() < length {
            return Err(SnapshotError::Damaged("incomplete"));
        }
        self.checksum.0.update(&block);
        Ok(Some(block.into()))
    }

    fn get<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("incomplete"),
            _ => error.into(),
        })?;
        self.checksum.0.update(&bytes);
        Ok(bytes)
    }

    fn check_end(&mut self) -> Result<(), SnapshotError> {
        let expected = self.checksum.bytes();
        let checksum: [u8; 16] = self.get()?;
        let mut rest = [0];
        if self.file.read(&mut rest)? > 0 {
            return Err(SnapshotError::Damaged("data after the end"));
        }
        if checksum == expected { Ok(()) } else { Err(SnapshotError::Damaged("wrong checksum")) }
    }

    fn rewind(&mut self) -> Result<(), SnapshotError> {
        self.file.seek(SeekFrom::Start(0))?;
        self.checksum = Checksum::default();
        Ok(())
    }
}
