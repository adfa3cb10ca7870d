//! The credentials of a client: from its settings, and when they change.

use std::{path::PathBuf, pin::pin, sync::Weak};

use zerocache_core::access::{StaticToken, Token};
use zerocache_net::{
    clock,
    security::{Security, SecurityConfig, Source, TlsFiles},
};

use super::{
    config::{ConfigSource, invalid, parse},
    engine::Engine,
};
use crate::Error;

/// Reads the settings of credentials from variables.
pub(super) fn from_variables(
    set: impl Fn(&str) -> Result<Option<String>, Error>,
) -> Result<SecurityConfig, Error> {
    let source = |value: &str, file: &str| match (set(value)?, set(file)?) {
        (Some(_), Some(_)) => Err(invalid(value, &format!("{file} is set too; one is allowed"))),
        (Some(text), None) => Ok(Some(Source::Value(text))),
        (None, path) => Ok(path.map(|path| Source::File(path.into()))),
    };
    let path = |name: &str| Ok::<_, Error>(set(name)?.map(PathBuf::from));
    let files = TlsFiles {
        cert: path("ZEROCACHE_TLS_CERT")?,
        key: path("ZEROCACHE_TLS_KEY")?,
        ca: path("ZEROCACHE_TLS_CA")?,
    };
    let mode = set("ZEROCACHE_TLS")?;
    Ok(SecurityConfig {
        secret: source("ZEROCACHE_SECRET", "ZEROCACHE_SECRET_FILE")?,
        token: source("ZEROCACHE_TOKEN", "ZEROCACHE_TOKEN_FILE")?,
        files: (files != TlsFiles::default()).then_some(files),
        tls: mode.map(|mode| parse("ZEROCACHE_TLS", &mode)).transpose()?,
        server_name: set("ZEROCACHE_TLS_SERVER_NAME")?,
        ..SecurityConfig::default()
    })
}

/// Checks what can be checked without files. No error shows what is secret.
pub(super) fn validate(config: &SecurityConfig, source: ConfigSource) -> Result<(), Error> {
    if let Some(Source::Value(text)) = &config.token {
        let text = text.trim();
        let wrong = text.parse::<Token>().err().filter(|_| text.parse::<StaticToken>().is_err());
        if let Some(error) = wrong {
            return Err(invalid(source.name(("token", "ZEROCACHE_TOKEN")), &error));
        }
    }
    Ok(())
}

/// Reads the credentials. A client without a network has none.
pub(super) fn load(config: &SecurityConfig, is_offline: bool) -> Result<Security, Error> {
    if is_offline {
        return Ok(Security::plain());
    }
    Security::load(config.clone()).map_err(|error| Error::Config(error.to_string()))
}

/// Returns a number that differs between clients with different credentials.
pub(super) fn number(config: &SecurityConfig, security: &Security) -> u64 {
    if *config == SecurityConfig::default() {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    // It shows no values.
    hasher.update(format!("{config:?}").as_bytes());
    if let Some(Source::Value(secret)) = &config.secret {
        hasher.update(secret.as_bytes());
    }
    if let Some(token) = security.authorization() {
        hasher.update(token.as_bytes());
    }
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_be_bytes(number)
}

/// Reads the files of credentials again when they change, and tells the client, until it is gone.
pub(super) async fn keep(engine: Weak<Engine>, security: Security) {
    let mut changes = security.changes();
    let mut watch = pin!(security.watch_files());
    loop {
        tokio::select! {
            () = &mut watch => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let Some(engine) = engine.upgrade() else { return };
        engine.state.lock().credentials_changed(clock::mono());
        if let Some(near) = &engine.local.near {
            near.sharing.permit();
        }
        engine.listeners.permit();
        engine.changed();
    }
}

#[cfg(test)]
mod tests {
    use zerocache_net::security::TlsMode;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<SecurityConfig, Error> {
        from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn variables_name_values_or_files() {
        assert_eq!(read(&[]).expect("nothing is set"), SecurityConfig::default());
        let token = StaticToken::from_random([1; 32]);
        let config = read(&[
            ("ZEROCACHE_TOKEN", token.as_text()),
            ("ZEROCACHE_SECRET_FILE", "/run/secret"),
            ("ZEROCACHE_TLS", "optional"),
            ("ZEROCACHE_TLS_CA", "ca.pem"),
            ("ZEROCACHE_TLS_SERVER_NAME", "cache.shop.example"),
        ])
        .expect("it is allowed");
        assert_eq!(config.token, Some(Source::Value(token.as_text().to_owned())));
        assert_eq!(config.secret, Some(Source::File("/run/secret".into())));
        assert_eq!(config.mode(), TlsMode::Optional);
        let files = config.files.clone().expect("a CA");
        assert_eq!((files.ca, files.cert), (Some("ca.pem".into()), None));
        assert_eq!(config.server_name.as_deref(), Some("cache.shop.example"));
        assert!(!format!("{config:?}").contains(token.as_text()));
        for [value, file] in [
            ["ZEROCACHE_TOKEN", "ZEROCACHE_TOKEN_FILE"],
            ["ZEROCACHE_SECRET", "ZEROCACHE_SECRET_FILE"],
        ] {
            let error = read(&[(value, "a"), (file, "b")]).expect_err("both").to_string();
            assert!(error.contains(value) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn text_that_is_no_token_is_refused_without_showing_it() {
        let with = |token: &str| {
            let token = Some(Source::Value(token.to_owned()));
            let config = SecurityConfig { token, ..SecurityConfig::default() };
            validate(&config, ConfigSource::Environment)
        };
        let error = with("hunter2").expect_err("no token").to_string();
        assert!(error.contains("ZEROCACHE_TOKEN: this is not a token"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(with(StaticToken::from_random([1; 32]).as_text()).is_ok());
    }

    #[test]
    fn clients_with_different_credentials_have_different_numbers() {
        let numbers: Vec<_> = [None, Some([1; 32]), Some([2; 32]), Some([1; 32])]
            .into_iter()
            .map(|token| {
                let text = token.map(|bytes| StaticToken::from_random(bytes).as_text().to_owned());
                // In so many words, or it could not be shown to anybody.
                let tls = text.is_some().then_some(TlsMode::Off);
                let token = text.map(Source::Value);
                let config = SecurityConfig { token, tls, ..SecurityConfig::default() };
                number(&config, &load(&config, false).expect("it is allowed"))
            })
            .collect();
        assert_eq!(numbers[0], 0);
        assert!(numbers[1] != 0 && numbers[1] != numbers[2] && numbers[1] == numbers[3]);
    }
}
