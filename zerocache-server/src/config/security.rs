//! The settings that say who is let in.

use std::net::IpAddr;

use zerocache_net::security::{ProcessKind, SecurityConfig, TlsFiles, TlsMode};

use super::server::{ConfigError, ServerConfig, check};
use crate::access::Level;

/// The most names of one setting.
const NAMES_MAX: usize = 64;

/// The longest DNS name (RFC 1035), in bytes.
const NAME_BYTES_MAX: usize = 253;

impl ServerConfig {
    /// Returns what decides who may do what.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            _ if self.has_files() => Level::Certificates,
            Self { secret: Some(_), .. } => Level::Secret,
            Self { insecure: true, .. } => Level::Insecure,
            _ => Level::Protected,
        }
    }

    fn has_files(&self) -> bool {
        self.tls_files != TlsFiles::default()
    }

    /// Returns the credentials of a node that announces `addresses`.
    pub(crate) fn security_config(&self, addresses: &[IpAddr]) -> SecurityConfig {
        SecurityConfig {
            secret: self.secret.clone(),
            files: self.has_files().then(|| self.tls_files.clone()),
            token: None,
            tls: self.tls,
            server_name: self.tls_server_name.clone(),
            names: self.tls_names.clone(),
            addresses: addresses.to_vec(),
            kind: ProcessKind::Node { region: self.region.clone() },
            own_host_only: self.level() == Level::Protected,
        }
    }

    /// Returns whether the Python paths of this configuration have no callers unless `anonymous` callers may
    /// write: their clients can neither encrypt nor present credentials.
    pub(crate) fn needs_anonymous_writers(&self) -> bool {
        let is_open = matches!(self.level(), Level::Protected | Level::Insecure);
        self.compat.is_some() && self.compat_listen.is_none() && !is_open
    }
}

/// What to do about Python paths that nobody could use.
pub(crate) const COMPAT_NEEDS_LISTENER: &str = "Python clients can neither encrypt nor present credentials; add \
    --compat-listen 127.0.0.1:PORT for those of this host, or the role write for [anonymous] to the access file";

/// Checks the settings that say who is let in.
pub(super) fn validate(config: &ServerConfig) -> Result<(), ConfigError> {
    let has_secret = config.secret.is_some();
    let has_credentials = has_secret || config.has_files();
    let needs_credentials = |setting, is_set: bool| {
        check(!is_set || has_credentials, setting, || {
            "needs a secret (--secret-file or ZEROCACHE_SECRET) or certificates (--tls-cert, --tls-key \
             and --tls-ca)"
                .into()
        })
    };
    check(!config.insecure || !has_credentials, "insecure", || {
        "serves everybody, and there is a secret or a certificate as well; remove one of them"
            .into()
    })?;
    validate_files(config)?;
    check(config.tls != Some(TlsMode::Off) || !has_credentials, "tls", || {
        "off leaves nobody a way to prove who it is; use required or optional, or remove the secret and \
         the certificates"
            .into()
    })?;
    needs_credentials("tls", config.tls.is_some_and(|tls| tls != TlsMode::Off))?;
    needs_credentials("access", config.access.is_some())?;
    needs_credentials("tls-server-name", config.tls_server_name.is_some())?;
    check(config.tls_names.is_empty() || (has_secret && !config.has_files()), "tls-name", || {
        "is for the certificate that a node makes from the secret; other certificates have their names \
         already"
            .into()
    })?;
    validate_names("tls-name", &config.tls_names)?;
    validate_names("allowed-host", &config.allowed_hosts)?;
    validate_compat(config)
}

fn validate_files(config: &ServerConfig) -> Result<(), ConfigError> {
    let TlsFiles { cert, key, ca } = &config.tls_files;
    let files = [("tls-cert", cert), ("tls-key", key), ("tls-ca", ca)];
    let missing = files.iter().find(|(_, file)| file.is_none()).map(|(setting, _)| *setting);
    match missing {
        Some(setting) if config.has_files() => {
            let reason =
                "missing; a node with certificates needs --tls-cert, --tls-key and --tls-ca";
            Err(ConfigError::new(setting, reason.into()))
        }
        _ => Ok(()),
    }
}

fn validate_names(setting: &'static str, names: &[String]) -> Result<(), ConfigError> {
    check(names.len() <= NAMES_MAX, setting, || {
        format!("{} are too many; use at most {NAMES_MAX}", names.len())
    })?;
    let is_name = |name: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_part)
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(wrong) => {
            let reason = format!("{wrong:?} is not a host name; use one like cache.shop.example");
            Err(ConfigError::new(setting, reason))
        }
        None => Ok(()),
    }
}

fn validate_compat(config: &ServerConfig) -> Result<(), ConfigError> {
    if let Some(listen) = config.compat_listen {
        check(config.compat.is_some(), "compat-listen", || "needs --compat zerocache-py".into())?;
        check(listen.is_ipv4() && listen.ip().is_loopback(), "compat-listen", || {
            format!("{listen} is reached from other hosts; use 127.0.0.1:PORT")
        })?;
    }
    // With an access file, that is known when it has been read.
    let is_unusable = config.needs_anonymous_writers() && config.access.is_none();
    check(!is_unusable, "compat", || COMPAT_NEEDS_LISTENER.into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use zerocache_core::access::Secret;
    use zerocache_net::security::Source;

    use super::*;
    use crate::config::Compat;

    fn with(change: impl FnOnce(&mut ServerConfig)) -> Result<Level, String> {
        let mut config = ServerConfig::new("london");
        change(&mut config);
        config.validate().map(|()| config.level()).map_err(|error| error.setting().to_owned())
    }

    fn secret(config: &mut ServerConfig) {
        config.secret = Some(Source::Value(Secret::from_random([1; 32]).to_text()));
    }

    fn files(config: &mut ServerConfig) {
        let file = |name| Some(PathBuf::from(name));
        config.tls_files =
            TlsFiles { cert: file("node.pem"), key: file("node.key"), ca: file("ca.pem") };
    }

    #[test]
    fn level_follows_from_what_is_configured() {
        assert_eq!(with(|_| {}), Ok(Level::Protected));
        assert_eq!(with(|c| c.insecure = true), Ok(Level::Insecure));
        assert_eq!(with(secret), Ok(Level::Secret));
        assert_eq!(with(files), Ok(Level::Certificates));
        let both = |c: &mut ServerConfig| {
            files(c);
            secret(c);
        };
        assert_eq!(with(both), Ok(Level::Certificates));
    }

    #[test]
    fn combinations_that_protect_nothing_are_refused() {
        let refused = |change: fn(&mut ServerConfig)| with(change).expect_err("a mistake");
        assert_eq!(refused(|c| (secret(c), c.insecure = true).1), "insecure");
        assert_eq!(refused(|c| (files(c), c.insecure = true).1), "insecure");
        assert_eq!(refused(|c| (secret(c), c.tls = Some(TlsMode::Off)).1), "tls");
        assert_eq!(refused(|c| c.tls = Some(TlsMode::Required)), "tls");
        assert_eq!(refused(|c| c.access = Some("access.toml".into())), "access");
        assert_eq!(refused(|c| c.tls_server_name = Some("x".into())), "tls-server-name");
        assert_eq!(refused(|c| (files(c), c.tls_names = vec!["x".into()]).1), "tls-name");
        assert_eq!(refused(|c| (secret(c), c.tls_names = vec!["a b".into()]).1), "tls-name");
        assert_eq!(refused(|c| c.allowed_hosts = vec!["http://x".into()]), "allowed-host");
        assert_eq!(refused(|c| (files(c), c.tls_files.key = None).1), "tls-key");
        assert_eq!(refused(|c| (files(c), c.tls_files.ca = None).1), "tls-ca");
        assert_eq!(refused(|c| c.tls_files.ca = Some("ca.pem".into())), "tls-cert");
    }

    #[test]
    fn python_paths_need_callers_that_can_use_them() {
        let python = |c: &mut ServerConfig| c.compat = Some(Compat::ZerocachePy);
        let listen = |c: &mut ServerConfig, at: &str| {
            c.compat_listen = Some(at.parse().expect("an address"))
        };
        assert_eq!(with(python), Ok(Level::Protected));
        assert_eq!(with(|c| (secret(c), python(c)).1), Err("compat".into()));
        let local = |c: &mut ServerConfig| {
            secret(c);
            python(c);
            listen(c, "127.0.0.1:0");
        };
        assert_eq!(with(local), Ok(Level::Secret));
        let elsewhere = |c: &mut ServerConfig| {
            python(c);
            listen(c, "0.0.0.0:1");
        };
        assert_eq!(with(elsewhere), Err("compat-listen".into()));
        assert_eq!(with(|c| listen(c, "127.0.0.1:1")), Err("compat-listen".into()));
        // The access file may let them in.
        let access = |c: &mut ServerConfig| {
            secret(c);
            python(c);
            c.access = Some("a".into());
        };
        assert_eq!(with(access), Ok(Level::Secret));
    }
}
