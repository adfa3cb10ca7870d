//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};
use zerocache_core::name;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  A secret for the nodes of a cluster:
    zerocache secret > secret && chmod 600 secret
    ZEROCACHE_SECRET_FILE=secret zerocache-server --region london

  What a token says, and whether it is of this cluster:
    zerocache token show --secret-file secret - < token";

const SECRET_EXAMPLES: &str = "\
Example:
  umask 077; zerocache secret > secret";

const SHOW_EXAMPLES: &str = "\
Without a secret nothing is verified: it prints what the token claims.

Examples:
  zerocache token show - < token
  ZEROCACHE_SECRET_FILE=secret zerocache token show --json - < token";

/// Makes the secrets and tokens of a zerocache cluster
#[derive(Debug, Parser)]
#[command(name = "zerocache", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a new secret: who has it can be a node, and make tokens
    #[command(after_help = SECRET_EXAMPLES)]
    Secret,
    /// Tokens, which clients present instead of the secret
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print what a token says, and verify it if the secret is given
    Show(ShowArgs),
}

/// Where the secrets are.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretArgs {
    /// File with the secrets, one a line [ZEROCACHE_SECRET_FILE; or ZEROCACHE_SECRET with one secret]
    #[arg(long, value_name = "PATH")]
    pub(crate) secret_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArgs {
    /// The token; - reads it from standard input, where other users do not see it
    #[arg(value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) token: String,

    /// Cluster that it must be for [default: the one that it names]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) cluster: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) secret: SecretArgs,
}

fn parse_name(text: &str) -> Result<String, String> {
    name::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Refuses a secret on the command line, before anything repeats it in an error.
pub(crate) fn refuse_secrets(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let is_secret = |argument: OsString| argument.to_string_lossy().contains("zcs1_");
    match arguments.any(is_secret) {
        true => Err(Failure::usage(
            "a secret does not belong on a command line, which every user of the machine can read; use \
             --secret-file, or make a new one"
                .to_owned(),
        )),
        false => Ok(()),
    }
}
