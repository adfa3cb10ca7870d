//! The arguments of commands that take nodes out of service, and list and follow keys.

use std::time::Duration;

use zerocache_core::access::Prefix;

use super::{entries::parse_tag, global::parse_timeout, parse_prefix};

const DRAIN_EXAMPLES: &str = "\
NODE is its address as HOST:PORT, or its id or the beginning of it, as nodes prints them. The node keeps running: \
clients and other nodes go elsewhere until undrain, or until it is stopped. With --wait exit code 6: the others \
have not noticed in time, or writes still wait to be sent.

Examples:
  zerocache drain 10.0.0.7:6789 --wait
  zerocache drain 4f2a --seed 10.0.0.7:6789";

const UNDRAIN_EXAMPLES: &str = "\
NODE is as for drain. The node fetches what was written meanwhile before it is ready. With --wait exit code 6: it \
is not ready in time.

Example:
  zerocache undrain 10.0.0.7:6789 --wait=5m";

/// A node, and whether to wait for what becomes of it.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    /// The node: HOST:PORT, or its id or the beginning of it
    #[arg(value_name = "NODE")]
    pub(crate) target: String,

    /// Wait until it is done, for at most TIME [default with --wait: 60s]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s",
        value_parser = parse_timeout,
    )]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = UNDRAIN_EXAMPLES)]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

const KEYS_EXAMPLES: &str = "\
It walks one node: --node, or else the first that answers; with --all-nodes every node that answers, and each key \
comes once. It needs the role admin; a token with prefixes shows the keys that it is for. A key is one line, with \
escapes for what is no text. A key of one node may come twice if others were removed meanwhile. Sizes are those \
of the values as they are stored. --hot needs the role monitor, and admin for the names of keys.

Examples:
  zerocache keys --prefix orders/
  zerocache keys --tag tenant:7 --all-nodes
  zerocache keys --big 20
  zerocache keys --hot 50
  zerocache keys --prefix memo:shop --long
  zerocache keys --json | jq -r '.keys[].key_hex'";

#[derive(Debug, clap::Args)]
#[command(after_help = KEYS_EXAMPLES)]
pub(crate) struct KeysArgs {
    /// Only keys that begin with this text, or memo:NAMESPACE for memoized functions
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    pub(crate) prefix: Option<Prefix>,

    /// Only keys of entries with this tag
    #[arg(long, value_name = "TAG", value_parser = parse_tag)]
    pub(crate) tag: Option<String>,

    /// Walk all nodes
    #[arg(long, conflicts_with = "node")]
    pub(crate) all_nodes: bool,

    /// Print the N keys with the largest values, the largest first, as --long does; at most 10000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) big: Option<u32>,

    /// Print the N keys that are read most, of all nodes together, as top --hot does; at most 256
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=256),
        conflicts_with_all = ["prefix", "tag", "all_nodes", "big", "long"],
    )]
    pub(crate) hot: Option<u32>,

    /// Print the size and the remaining life before each key
    #[arg(long, short)]
    pub(crate) long: bool,
}

const WATCH_EXAMPLES: &str = "\
It follows the changes that one node learns of: --node, or else the first that answers. A line has the hash of \
the key, the stamp of its new version, what happened, and the key where it is known: put with the size of the \
value, removed (deleted, expired or evicted), or changed where that was not looked up. A purge is a line with \
the hash of what it is of, unless --prefix is given. The role read is enough for hashes; keys need admin. With --json each change is an object on a line of its own. It ends on Ctrl-C.

Examples:
  zerocache watch --prefix orders/
  zerocache watch --for 10s --json
  zerocache watch --count 1";

#[derive(Debug, clap::Args)]
#[command(after_help = WATCH_EXAMPLES)]
pub(crate) struct WatchArgs {
    /// Only keys that begin with this text, or memo:NAMESPACE for memoized functions
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    pub(crate) prefix: Option<Prefix>,

    /// End after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End after this time, such as 10s
    #[arg(long = "for", value_name = "TIME", value_parser = parse_timeout)]
    pub(crate) duration: Option<Duration>,
}
