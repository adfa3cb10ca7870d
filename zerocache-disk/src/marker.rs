//! The small files beside the segments: `format`, which says whose log it is, and `state`, which the caller fills.

use std::io;

use crate::{
    directory::Directory,
    error::OpenError,
    format::checksum,
    segments::{name, number},
};

/// The version of the format that this release writes. A release reads those up to its own.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const STATE_FILE: &str = "state";
const FIRST_WORD: &str = "zerocache-disk";

/// Checks that the directory is one of this cluster, or marks it. Returns the salt of the log.
///
/// `has_segments` says whether there are segments, which there must not be without the file.
pub(crate) fn check<D: Directory>(
    directory: &D,
    cluster: &str,
    salt: u64,
    has_segments: bool,
) -> Result<u64, OpenError> {
    let expected = cluster.escape_default().to_string();
    let text = match directory.read(FORMAT_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_segments {
                return Err(OpenError::Unmarked);
            }
            let lines = format!("{FIRST_WORD} {FORMAT}\ncluster {expected}\nsalt {salt:016x}\n");
            let crc = checksum(0, lines.as_bytes());
            directory.replace(FORMAT_FILE, format!("{lines}sum {crc:08x}\n").as_bytes())?;
            return Ok(salt);
        }
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8(text).map_err(|_| OpenError::Unmarked)?;
    let found = text.strip_prefix(FIRST_WORD).and_then(|rest| rest.lines().next());
    let found: u32 =
        found.and_then(|number| number.trim().parse().ok()).ok_or(OpenError::Unmarked)?;
    if found > FORMAT {
        return Err(OpenError::LaterFormat { found, supported: FORMAT });
    }
    let (found, salt) = parse(&text).ok_or(OpenError::Unmarked)?;
    if found != expected {
        return Err(OpenError::OtherCluster {
            found: found.to_owned(),
            expected: cluster.to_owned(),
        });
    }
    Ok(salt)
}

/// Checks that a directory is one in which [`Log::open`](crate::Log::open) finds the log of this cluster, or none.
///
/// # Errors
/// Those of [`Log::open`](crate::Log::open), without reading segments.
pub fn check_directory<D: Directory>(directory: &D, cluster: &str) -> Result<(), OpenError> {
    let has_segments = directory.list()?.iter().any(|file| number(file).is_some());
    match directory.read(FORMAT_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_segments => Ok(()),
        _ => check(directory, cluster, 0, has_segments).map(drop),
    }
}

/// Removes the log of a directory, but not what says whose it is.
///
/// The state goes first, then segments, oldest first: what is left if the process ends meanwhile counts for no later
/// one.
///
/// # Errors
/// A file cannot be removed.
pub fn clear_directory<D: Directory>(directory: &D) -> io::Result<()> {
    let mut segments: Vec<u32> = Vec::new();
    for file in directory.list()? {
        segments.extend(number(&file));
        if file == STATE_FILE {
            directory.remove(&file)?;
        }
    }
    segments.sort_unstable();
    segments.into_iter().try_for_each(|number| directory.remove(&name(number)))
}

/// The cluster and the salt of the file `format`.
fn parse(text: &str) -> Option<(&str, u64)> {
    let (lines, sum) = text.split_at(text.rfind("sum ")?);
    if sum != format!("sum {:08x}\n", checksum(0, lines.as_bytes())) {
        return None;
    }
    let mut lines = lines.lines().skip(1);
    let cluster = lines.next()?.strip_prefix("cluster ")?;
    let salt = lines.next()?.strip_prefix("salt ")?;
    Some((cluster, u64::from_str_radix(salt, 16).ok()?))
}

pub(crate) fn write_state<D: Directory>(directory: &D, content: &[u8]) -> io::Result<()> {
    let mut all = checksum(0, content).to_le_bytes().to_vec();
    all.extend_from_slice(content);
    directory.replace(STATE_FILE, &all)
}

/// Reads the state that [`Log::write_state`](crate::Log::write_state) stored, `None` if there is none or it is damaged.
///
/// # Errors
/// The file system refused.
pub fn read_state<D: Directory>(directory: &D) -> io::Result<Option<Vec<u8>>> {
    let mut all = match directory.read(STATE_FILE) {
        Ok(all) => all,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(crc) = all.first_chunk().map(|crc| u32::from_le_bytes(*crc)) else { return Ok(None) };
    let content = all.split_off(4);
    Ok((checksum(0, &content) == crc).then_some(content))
}
