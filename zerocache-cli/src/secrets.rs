//! The secrets that a command uses: from a file, or from variables.

use std::path::PathBuf;

use zerocache_core::access::Secret;
use zerocache_net::security::{self, Source};

use crate::{args::SecretArgs, failure::Failure};

/// Returns the secrets that the arguments or the variables name, the one in use first; none if nothing does.
pub(crate) fn find(args: &SecretArgs) -> Result<Vec<Secret>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let by_flag = args.secret_file.clone().map(|path| ("--secret-file", Source::File(path)));
    let by_file = || {
        let path = PathBuf::from(variable("ZEROCACHE_SECRET_FILE")?);
        Some(("ZEROCACHE_SECRET_FILE", Source::File(path)))
    };
    let by_value = || {
        let value = variable("ZEROCACHE_SECRET")?.to_string_lossy().into_owned();
        Some(("ZEROCACHE_SECRET", Source::Value(value)))
    };
    let Some((setting, source)) = by_flag.or_else(by_file).or_else(by_value) else {
        return Ok(Vec::new());
    };
    security::secrets(&source).map_err(|error| Failure::usage(format!("{setting}: {error}")))
}

/// Returns the secrets, of which there must be one.
pub(crate) fn needed(args: &SecretArgs) -> Result<Vec<Secret>, Failure> {
    let secrets = find(args)?;
    if secrets.is_empty() {
        return Err(Failure::usage(
            "this needs the secret; use --secret-file PATH, or set ZEROCACHE_SECRET_FILE or ZEROCACHE_SECRET"
                .to_owned(),
        ));
    }
    Ok(secrets)
}
