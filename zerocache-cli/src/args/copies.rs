//! The arguments of where, verify and repair.

use super::{KeyFormat, entries::parse_tag};

const WHERE_EXAMPLES: &str = "\
Any node is asked, and lists every node that it knows. ROLE says which are to hold the value: with a number of \
--replicas only the owners of the key. Exit codes: 0 found, 1 no node has a value, 6 the copies \
differ.

Examples:
  zerocache where greeting
  zerocache where greeting --digest --json | jq '.keys[0].nodes[].digest'";

const VERIFY_EXAMPLES: &str = "\
Verdicts: same; behind (an older version); missing; damaged (the same version with another content); evicted \
(dropped for lack of memory: no difference); witness (is to know the version alone: no difference); unreachable; unsupported (an earlier release). Exit codes: 0 all agree, \
6 some differ, 7 those that answered agree, or an origin has nothing of this length. With --tag, which needs the role admin, it prints the keys that are not \
all right, and exit code 1 says that there are none with this tag.

Examples:
  zerocache verify greeting
  zerocache verify orders/1 orders/2
  zerocache verify logo --origins
  zerocache verify --tag tenant:7 --sample 100";

const REPAIR_EXAMPLES: &str = "\
Older and missing copies get the newest version. For a damaged one the content of most nodes is written again, with \
a new version.

Examples:
  zerocache repair --dry-run greeting
  zerocache repair greeting --from 10.0.0.7:6789";

#[derive(Debug, clap::Args)]
#[command(after_help = WHERE_EXAMPLES)]
pub(crate) struct WhereArgs {
    /// The keys
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// Also compare the digests of the values
    #[arg(long)]
    pub(crate) digest: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// The keys
    #[arg(value_name = "KEY", required_unless_present = "tag", conflicts_with = "tag")]
    pub(crate) keys: Vec<String>,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// The keys of the entries that have this tag and that some node holds
    #[arg(long, value_name = "TAG", value_parser = parse_tag, conflicts_with_all = ["hex", "url"])]
    pub(crate) tag: Option<String>,

    /// Also ask the origins of the values by HEAD, whether they have something of the same length
    #[arg(long)]
    pub(crate) origins: bool,

    /// Only so many keys, by chance
    #[arg(long, value_name = "N", requires = "tag", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sample: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = REPAIR_EXAMPLES)]
pub(crate) struct RepairArgs {
    /// The keys
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// The id or the address of a node whose content is right
    #[arg(long, value_name = "NODE", conflicts_with = "dry_run")]
    pub(crate) from: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
