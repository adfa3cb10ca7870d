//! The command line.

mod copies;
mod entries;
mod global;
mod operate;
mod service;

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use zerocache_core::{
    access::{Prefix, Role},
    name,
};

pub(crate) use self::{
    copies::{RepairArgs, VerifyArgs, WhereArgs},
    entries::{DeleteArgs, GetArgs, KeyFormat, PurgeArgs, PutArgs, WhoHasIt},
    global::Global,
    operate::{CheckArgs, CheckKind, DoctorArgs, TopArgs},
    service::{DrainArgs, KeysArgs, ServiceArgs, UndrainArgs, WatchArgs},
};
use crate::{failure::Failure, lifetime};

const EXAMPLES: &str = "\
Examples:
  A secret for the nodes of a cluster:
    (umask 077; zerocache secret > secret)
    ZEROCACHE_SECRET_FILE=secret zerocache server --region london

  A token for a client, which may do less than whoever has the secret:
    zerocache token create --secret-file secret --name orders --role write --prefix orders/ > token
    ZEROCACHE_TOKEN_FILE=token orders-service

  What a token says, and whether it is of this cluster:
    zerocache token show --secret-file secret - < token";

const NODES_EXAMPLES: &str = "\
Exit code 6: a node does not answer, or another one does not see it.

Examples:
  zerocache nodes --seed 10.0.0.7:6789
  zerocache nodes --json | jq '.nodes[] | select(.seen_by < .observers)'";

const COMPLETIONS_EXAMPLES: &str = "\
Example:
  zerocache completions bash > /etc/bash_completion.d/zerocache";

const MAN_EXAMPLES: &str = "\
Example:
  zerocache man /usr/local/share/man/man1";

const SECRET_EXAMPLES: &str = "\
Example:
  umask 077; zerocache secret > secret";

const CREATE_EXAMPLES: &str = "\
It works offline. The token is one line on standard output; its id, by which it can be revoked, is on standard \
error. A role without --prefix is for all keys. Without --cluster and ZEROCACHE_CLUSTER the token is for the \
cluster zerocache.

Examples:
  zerocache token create --secret-file secret --name orders --role write \\
    --prefix orders/ --prefix memo:orders
  zerocache token create --secret-file secret --name prometheus --role monitor --for 365d > token
  zerocache token create --static";

const CA_EXAMPLES: &str = "\
Nodes and clients of the cluster do not need it. It is the same each time that it is printed.

Example:
  zerocache cert ca --secret-file secret > ca.pem
  curl --cacert ca.pem --connect-to node.zerocache.internal:6789:10.0.0.7:6789 \\
    https://node.zerocache.internal:6789/healthz";

const CREATE_CA_EXAMPLES: &str = "\
Example:
  zerocache cert create-ca --name 'shop cache CA'";

const NODE_EXAMPLES: &str = "\
The certificate has the names by which nodes and clients verify nodes; addresses are needed for others only.

Example:
  zerocache cert node --region london --name cache.shop.example --name 10.0.0.7
  zerocache server --region london --tls-cert node.pem --tls-key node-key.pem --tls-ca ca.pem";

const CLIENT_EXAMPLES: &str = "\
The access file of the nodes says what the names may do. A name is dns:NAME or a URI, as there.

Example:
  zerocache cert client --san spiffe://shop.example/orders";

const SHOW_EXAMPLES: &str = "\
Without a secret nothing is verified: it prints what the token claims. Without --cluster the token may be for \
any cluster.

Examples:
  zerocache token show - < token
  ZEROCACHE_SECRET_FILE=secret zerocache token show --json - < token";

/// Looks into a zerocache cluster, operates it, and makes its secrets, tokens and certificates
#[derive(Debug, Parser)]
#[command(name = "zerocache", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // `main` looks for this one before anything is parsed: flags of a node have the names of other flags here.
    /// Run a node; "zerocache server --help" prints its flags
    #[command(disable_help_flag = true)]
    Server {
        /// What zerocache-server takes
        #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Print the value of a key
    Get(GetArgs),
    /// Store a value
    Put(PutArgs),
    /// Delete keys
    Delete(DeleteArgs),
    /// End all entries with a tag, of a namespace, or all
    Purge(PurgeArgs),
    /// Print on which nodes the copies of keys are
    Where(WhereArgs),
    /// Compare the copies of keys
    Verify(VerifyArgs),
    /// Make the copies of keys agree
    Repair(RepairArgs),
    /// Print the members of the cluster, as all nodes see them
    #[command(alias = "status", after_help = NODES_EXAMPLES)]
    Nodes,
    /// Print the keys that a node holds
    Keys(KeysArgs),
    /// Print each change of a key as it happens
    Watch(WatchArgs),
    /// Take a node out of service without stopping it
    Drain(DrainArgs),
    /// Put a drained node into service again
    Undrain(UndrainArgs),
    /// Look for known misfortunes, and say what to do
    Doctor(DoctorArgs),
    /// Print what each node does now
    Top(TopArgs),
    /// Make one check, for a monitoring system or a container
    Check(CheckArgs),
    /// Print the completions of a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print a new secret: who has it can be a node, and make tokens
    #[command(after_help = SECRET_EXAMPLES)]
    Secret,
    /// Tokens, which clients present instead of the secret
    #[command(subcommand)]
    Token(TokenCommand),
    /// Certificates: the CA of a secret, or a CA of your own
    #[command(subcommand)]
    Cert(CertCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token for a client
    Create(CreateArgs),
    /// Print what a token says, and verify it if the secret is given
    Show(ShowArgs),
}

/// What a token is for.
#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the client, for people and logs
    #[arg(long, value_name = "NAME", value_parser = parse_name, required_unless_present = "is_static")]
    pub(crate) name: Option<String>,

    /// What the client may do: read, write, monitor or admin
    #[arg(long, value_name = "ROLE", value_parser = parse_role, required_unless_present = "is_static")]
    pub(crate) role: Option<Role>,

    /// Keys that it is for: a text that they begin with, or memo:NAMESPACE for memoized functions; repeatable
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    pub(crate) prefix: Vec<Prefix>,

    /// How long it is valid, such as 90d, 12h or 5m
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = lifetime::parse)]
    pub(crate) lifetime_s: u64,

    /// CA file of the nodes, where they have certificates from files beside the secret
    #[arg(long, value_name = "PATH")]
    pub(crate) ca: Option<PathBuf>,

    /// Print a random token and its hash for the access file instead, for a cluster without a secret
    #[arg(
        long = "static",
        conflicts_with_all = ["name", "role", "prefix", "lifetime_s", "cluster", "ca", "secret_file"],
    )]
    pub(crate) is_static: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Print the certificate of the CA that the secret stands for, of all accepted secrets
    #[command(after_help = CA_EXAMPLES)]
    Ca,
    /// Write a CA of your own
    #[command(after_help = CREATE_CA_EXAMPLES)]
    CreateCa(CreateCaArgs),
    /// Write a certificate for a node
    #[command(after_help = NODE_EXAMPLES)]
    Node(NodeCertArgs),
    /// Write a certificate for a client
    #[command(after_help = CLIENT_EXAMPLES)]
    Client(ClientCertArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateCaArgs {
    /// Name of the CA
    #[arg(long, value_name = "NAME", default_value = "zerocache CA")]
    pub(crate) name: String,

    /// File for the certificate; it must not exist
    #[arg(long, value_name = "PATH", default_value = "ca.pem")]
    pub(crate) ca: PathBuf,

    /// File for the key; it must not exist
    #[arg(long, value_name = "PATH", default_value = "ca-key.pem")]
    pub(crate) ca_key: PathBuf,

    /// How long it is valid, such as 3650d
    #[arg(long = "for", value_name = "TIME", default_value = "3650d", value_parser = lifetime::parse)]
    pub(crate) lifetime_s: u64,
}

/// Who issues a certificate, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct IssueArgs {
    /// File with the certificate of the CA
    #[arg(long, value_name = "PATH", default_value = "ca.pem")]
    pub(crate) ca: PathBuf,

    /// File with the key of the CA
    #[arg(long, value_name = "PATH", default_value = "ca-key.pem")]
    pub(crate) ca_key: PathBuf,

    /// How long it is valid, such as 90d
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = lifetime::parse)]
    pub(crate) lifetime_s: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeCertArgs {
    /// Region of the node
    #[arg(long, value_name = "NAME", value_parser = parse_region)]
    pub(crate) region: String,

    /// Further DNS name or IP address, for curl and browsers; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Vec<String>,

    /// File for the certificate; it must not exist
    #[arg(long, value_name = "PATH", default_value = "node.pem")]
    pub(crate) cert: PathBuf,

    /// File for the key; it must not exist
    #[arg(long, value_name = "PATH", default_value = "node-key.pem")]
    pub(crate) key: PathBuf,

    #[command(flatten)]
    pub(crate) issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClientCertArgs {
    /// Name of the client: dns:NAME, or a URI such as spiffe://shop.example/orders; repeatable
    #[arg(long, value_name = "NAME", required = true, value_parser = parse_san)]
    pub(crate) san: Vec<String>,

    /// File for the certificate; it must not exist
    #[arg(long, value_name = "PATH", default_value = "client.pem")]
    pub(crate) cert: PathBuf,

    /// File for the key; it must not exist
    #[arg(long, value_name = "PATH", default_value = "client-key.pem")]
    pub(crate) key: PathBuf,

    #[command(flatten)]
    pub(crate) issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArgs {
    /// The token; - reads it from standard input, where other users do not see it
    #[arg(value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) token: String,
}

fn parse_region(text: &str) -> Result<String, String> {
    name::check_region(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// A role that a token can have.
fn parse_role(text: &str) -> Result<Role, String> {
    let role = text.parse().ok();
    let role = role.filter(|role| !matches!(role, Role::None | Role::Node | Role::All));
    role.ok_or_else(|| format!("{text:?} is no role of a token; use read, write, monitor or admin"))
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    text.parse()
}

fn parse_san(text: &str) -> Result<String, String> {
    let is_uri = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let is_dns = text.strip_prefix("dns:").is_some_and(|name| !name.is_empty());
    match is_uri || is_dns {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name of a client; use dns:NAME or a URI")),
    }
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
