//! The settings of the disk tier.

use std::{path::PathBuf, str::FromStr};

use super::{
    server::{ConfigError, ServerConfig, check},
    values::choose,
};

/// The default of the smallest value that goes to disk, in bytes: what memory keeps of an entry on disk is a small
/// part of it.
pub const DISK_VALUE_BYTES_DEFAULT: u64 = 2 << 10;

/// The least that a disk tier may take, in bytes.
const DISK_BYTES_MIN: u64 = 64 << 20;

/// Where the values go that memory evicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The directory, of this node alone. It is created if it is missing.
    pub path: PathBuf,
    /// The most bytes of its files, at least 64 MiB.
    pub bytes_max: u64,
    /// The smallest value that goes there, in bytes, at least 1.
    pub value_bytes_min: u64,
    /// Which values go there.
    pub admission: DiskAdmission,
}

impl DiskConfig {
    /// Creates the default configuration of a directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes_max: u64) -> Self {
        let (value_bytes_min, admission) = (DISK_VALUE_BYTES_DEFAULT, DiskAdmission::default());
        Self { path: path.into(), bytes_max, value_bytes_min, admission }
    }
}

/// Which evicted values go to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskAdmission {
    /// Those that were read at least once.
    #[default]
    Read,
    /// All.
    All,
}

impl DiskAdmission {
    /// Returns its name in configuration and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::All => "all",
        }
    }
}

impl FromStr for DiskAdmission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, [("read", Self::Read), ("all", Self::All)])
    }
}

/// The flags of the disk tier, as far as they were given.
#[derive(Debug)]
pub(super) struct DiskFlags {
    pub(super) path: Option<PathBuf>,
    pub(super) bytes_max: Option<u64>,
    pub(super) value_bytes_min: Option<u64>,
    pub(super) admission: Option<DiskAdmission>,
}

impl DiskFlags {
    /// Returns the configuration.
    ///
    /// # Errors
    /// If there is a directory without a size, or a setting of a directory without one.
    pub(super) fn resolve(self) -> Result<Option<DiskConfig>, ConfigError> {
        let Self { path, bytes_max, value_bytes_min, admission } = self;
        let Some(path) = path else {
            let without = |setting| {
                let reason = "there is no directory for it; use --disk PATH as well".to_owned();
                Err(ConfigError::new(setting, reason))
            };
            return match (bytes_max, value_bytes_min, admission) {
                (Some(_), _, _) => without("disk-bytes"),
                (_, Some(_), _) => without("disk-min-value"),
                (_, _, Some(_)) => without("disk-admit"),
                _ => Ok(None),
            };
        };
        let Some(bytes_max) = bytes_max else {
            let reason = "there is no size; use --disk-bytes SIZE as well, such as 100GiB";
            return Err(ConfigError::new("disk", reason.to_owned()));
        };
        let mut disk = DiskConfig::new(path, bytes_max);
        disk.value_bytes_min = value_bytes_min.unwrap_or(disk.value_bytes_min);
        disk.admission = admission.unwrap_or_default();
        Ok(Some(disk))
    }
}

/// Validates the settings of the disk tier.
pub(super) fn validate(config: &ServerConfig) -> Result<(), ConfigError> {
    let Some(disk) = &config.disk else { return Ok(()) };
    check(config.snapshot.is_none(), "snapshot", || {
        "a node with a disk keeps its entries there at a shutdown; use --disk alone".into()
    })?;
    check(disk.bytes_max >= DISK_BYTES_MIN, "disk-bytes", || {
        format!("{} bytes are too few; use at least 64MiB", disk.bytes_max)
    })?;
    check(disk.value_bytes_min > 0, "disk-min-value", || "0 is too few; use at least 1".into())
}
