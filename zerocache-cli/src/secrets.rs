//! The secrets that a command uses: from a file, or from variables.

use zerocache_core::access::Secret;
use zerocache_net::security::{self, Source};

use crate::{args::Global, failure::Failure};

/// Returns the secrets that the options or the variables name, the one in use first; none if nothing does.
pub(crate) fn find(global: &Global) -> Result<Vec<Secret>, Failure> {
    let by_file = || {
        let is_option = global.secret_file.is_some();
        let setting = if is_option { "--secret-file" } else { "ZEROCACHE_SECRET_FILE" };
        Some((setting, Source::File(global.variable("ZEROCACHE_SECRET_FILE")?.into())))
    };
    let by_value =
        || Some(("ZEROCACHE_SECRET", Source::Value(global.variable("ZEROCACHE_SECRET")?)));
    let Some((setting, source)) = by_file().or_else(by_value) else {
        return Ok(Vec::new());
    };
    security::secrets(&source).map_err(|error| Failure::usage(format!("{setting}: {error}")))
}

/// Returns the secrets, of which there must be one.
pub(crate) fn needed(global: &Global) -> Result<Vec<Secret>, Failure> {
    let secrets = find(global)?;
    if secrets.is_empty() {
        return Err(Failure::usage(
            "this needs the secret; use --secret-file PATH, or set ZEROCACHE_SECRET_FILE or ZEROCACHE_SECRET"
                .to_owned(),
        ));
    }
    Ok(secrets)
}
