//! The credentials as they were read from files and variables.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use zerocache_core::access::{InvalidToken, Secret, StaticToken, Token, TokenKey};

use super::{SecurityConfig, SecurityError, Source, config::TlsFiles, error::SECRETS_MAX};

/// The largest file that is read, in bytes: dozens of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The permission to read a file, for everybody.
const READABLE_BY_OTHERS: u32 = 0o004;

/// The credentials as they were read.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) secrets: Vec<Secret>,
    pub(super) token: Option<ClientToken>,
    pub(super) files: Option<PemFiles>,
}

/// A token that a client presents.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum ClientToken {
    /// Signed by a secret. It names the CA by which nodes are verified.
    Signed(Token),
    /// Known to the nodes by its hash. It says nothing about them.
    Static(StaticToken),
}

impl ClientToken {
    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Signed(token) => token.as_text(),
            Self::Static(token) => token.as_text(),
        }
    }
}

impl FromStr for ClientToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        match text.parse() {
            Ok(token) => Ok(Self::Static(token)),
            Err(_) => text.parse().map(Self::Signed),
        }
    }
}

/// The content of PEM files.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct PemFiles {
    pub(super) cert: Option<PemFile>,
    pub(super) key: Option<PemFile>,
    pub(super) ca: Option<PemFile>,
}

/// The content of a PEM file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PemFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Inputs {
    pub(super) fn read(config: &SecurityConfig) -> Result<Self, SecurityError> {
        Ok(Self {
            secrets: config.secret.as_ref().map_or(Ok(Vec::new()), secrets)?,
            token: config.token.as_ref().map(token).transpose()?,
            files: config.files.as_ref().map(PemFiles::read).transpose()?,
        })
    }

    pub(super) fn token_keys(&self) -> Vec<TokenKey> {
        self.secrets.iter().map(Secret::token_key).collect()
    }
}

impl PemFiles {
    fn read(files: &TlsFiles) -> Result<Self, SecurityError> {
        let read = |path: &Option<PathBuf>| {
            let pem = |path: &PathBuf| Ok(PemFile { path: path.clone(), bytes: read(path)? });
            path.as_ref().map(pem).transpose()
        };
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)?, ca: read(&files.ca)? })
    }
}

/// Reads the secrets of a cluster: the first is the one to use, all are accepted. A file may have empty
/// lines and lines that begin with `#`.
///
/// # Errors
/// [`SecurityError`] if there is none, one of them is none, or there are too many.
pub fn secrets(source: &Source) -> Result<Vec<Secret>, SecurityError> {
    let (text, place) = match source {
        Source::Value(text) if text.trim().lines().count() > 1 => {
            return Err(SecurityError::SecretsWithoutFile);
        }
        Source::Value(text) => (text.clone(), "the secret".to_owned()),
        Source::File(path) => (read_text(path)?, path.display().to_string()),
    };
    let lines = text.lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    if lines.len() > SECRETS_MAX {
        return Err(SecurityError::TooManySecrets { place, count: lines.len() });
    }
    let mut secrets = Vec::new();
    for line in lines {
        let invalid = |source| SecurityError::InvalidSecret { place: place.clone(), source };
        let secret = line.parse().map_err(invalid)?;
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }
    if secrets.is_empty() { Err(SecurityError::NoSecret { place }) } else { Ok(secrets) }
}

fn token(source: &Source) -> Result<ClientToken, SecurityError> {
    let (text, place) = match source {
        Source::Value(text) => (text.clone(), "the token".to_owned()),
        Source::File(path) => (read_text(path)?, path.display().to_string()),
    };
    text.trim().parse().map_err(|source| SecurityError::InvalidToken { place, source })
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    let unreadable = |source| SecurityError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(SecurityError::TooLarge { path: path.to_owned(), max: FILE_BYTES_MAX });
    }
    Ok(bytes)
}

/// Text that is not UTF-8 is no secret and no token, and is refused as such.
fn read_text(path: &Path) -> Result<String, SecurityError> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

impl SecurityConfig {
    /// The files that hold something secret.
    fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let sources = [&self.secret, &self.token].into_iter().flatten();
        let files = sources.filter_map(|source| match source {
            Source::File(path) => Some(path.as_path()),
            Source::Value(_) => None,
        });
        let key = self.files.as_ref().and_then(|files| files.key.as_deref());
        files.chain(key)
    }

    fn watched_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.as_ref().map(|files| [&files.cert, &files.ca]);
        self.secret_files().chain(files.into_iter().flatten().filter_map(|path| path.as_deref()))
    }

    /// Logs a warning for each file with something secret that everybody can read.
    pub(super) fn warn_of_readable_files(&self) {
        for path in self.secret_files() {
            let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
            if mode & READABLE_BY_OTHERS != 0 {
                tracing::warn!(
                    path = %path.display(),
                    "every user of this host can read this file; set its mode to 0600"
                );
            }
        }
    }
}

/// What shows that files were changed: size, time of the last change and inode of each. A path is looked at,
/// not an open file: Kubernetes exchanges links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<(u64, i64, i64, u64)>>);

impl Stamps {
    pub(super) fn take(config: &SecurityConfig) -> Self {
        let stamp = |path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
        };
        Self(config.watched_files().map(stamp).collect())
    }
}
