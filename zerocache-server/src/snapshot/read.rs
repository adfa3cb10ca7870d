//! Reading a snapshot: once to check it, once to use it.

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

use super::{AHEAD_MS_MAX, BLOCK_BYTES_MAX, Header, MAGIC, SnapshotError, Sum};

/// Reads the snapshot at `path`, hands what it holds to `take`, in pieces, and returns the rest. Blocks.
///
/// # Errors
/// Why it cannot be used. Only a file that changes between the two readings can fail after something
/// was handed out.
pub fn read(
    path: &Path,
    cluster: &str,
    now: Now,
    mut take: impl FnMut(Vec<StoredItem>),
) -> Result<PersistedState, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SnapshotError::Missing);
        }
        Err(error) => return Err(error.into()),
    };
    let mut input = Input { file: BufReader::new(file), sum: Sum::default() };
    let header = input.header()?;
    if header.cluster != cluster {
        return Err(SnapshotError::OtherCluster(header.cluster));
    }
    let ahead_ms = header.written_ms.saturating_sub(now.wall_ms);
    if ahead_ms > AHEAD_MS_MAX {
        return Err(SnapshotError::FromTheFuture(ahead_ms));
    }
    let age_ms = now.wall_ms.saturating_sub(header.written_ms);
    // Nobody keeps traces for longer, whatever is written there.
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
        take(decode(block, age_ms)?.into_iter().map(|item| item.into_stored(now.mono)).collect());
    }
    Ok(header.memory(age_ms))
}

fn decode(
    block: Bytes,
    age_ms: u64,
) -> Result<Vec<zerocache_core::wire::FetchedItem>, SnapshotError> {
    match Response::decode(block)?.delayed_by(age_ms) {
        Response::Items { items, .. } => Ok(items),
        _ => Err(SnapshotError::Damaged("another message")),
    }
}

struct Input {
    file: BufReader<File>,
    sum: Sum,
}

impl Input {
    fn header(&mut self) -> Result<Header, SnapshotError> {
        let magic: [u8; 8] = self.get().map_err(|_| SnapshotError::Foreign)?;
        if magic != *MAGIC {
            return Err(SnapshotError::Foreign);
        }
        let header = self.block()?.ok_or(SnapshotError::Damaged("no header"))?;
        serde_json::from_slice(&header).map_err(|_| SnapshotError::Damaged("an unreadable header"))
    }

    /// The next block; none at the end.
    fn block(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let length = u32::from_le_bytes(self.get()?) as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > BLOCK_BYTES_MAX {
            return Err(SnapshotError::Damaged("a block too large"));
        }
        // Memory follows what is there, not what is announced.
        let mut block = Vec::new();
        (&mut self.file).take(length as u64).read_to_end(&mut block)?;
        if block.len() < length {
            return Err(SnapshotError::Damaged("it ends early"));
        }
        self.sum.0.update(&block);
        Ok(Some(block.into()))
    }

    fn get<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("it ends early"),
            _ => error.into(),
        })?;
        self.sum.0.update(&bytes);
        Ok(bytes)
    }

    fn check_end(&mut self) -> Result<(), SnapshotError> {
        let expected = self.sum.bytes();
        let sum: [u8; 16] = self.get()?;
        let mut rest = [0];
        if self.file.read(&mut rest)? > 0 {
            return Err(SnapshotError::Damaged("something follows its end"));
        }
        if sum == expected { Ok(()) } else { Err(SnapshotError::Damaged("its sum is wrong")) }
    }

    fn rewind(&mut self) -> Result<(), SnapshotError> {
        self.file.seek(SeekFrom::Start(0))?;
        self.sum = Sum::default();
        Ok(())
    }
}
