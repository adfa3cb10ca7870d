//! The arguments of get, put, delete and purge.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use zerocache_client::{Ack, Version};
use zerocache_core::{
    condition::Condition,
    metadata::{DescriptionError, Metadata},
    purge::{HOLD_MS_MAX, PurgeTarget},
};
use zerocache_net::units::parse_duration;

use crate::from_hex;

const GET_EXAMPLES: &str = "\
The value goes to standard output as it is stored. Exit code 1: there is none that is fresh, or with --stale \
none that may be served.

Examples:
  zerocache get greeting
  zerocache get --stale greeting
  zerocache get --url 'orders/7%00' --out order.bin
  zerocache get greeting --explain";

const PUT_EXAMPLES: &str = "\
It prints the outcome: stored, the replicas that hold it of those that it waited for, and the version. \
Exit code 1: a \
newer write or a condition kept it from being stored. Exit code 5: no answer came, and it may be stored or not.

Examples:
  zerocache put greeting hello --ttl 10m
  zerocache put greeting hello --if-absent
  zerocache put report - --ttl 1h --ack all --tags reports,tenant:7 < report.bin
  zerocache put logo - --content-type image/png --origin https://shop.example/logo.png < logo.png";

const DELETE_EXAMPLES: &str = "\
With --tag it lists the keys of all nodes, or those of --node, and then deletes each; that needs the role admin, \
and takes time. purge ends them at once, wherever they are.

Examples:
  zerocache delete greeting
  zerocache delete --yes orders/1 orders/2
  zerocache delete --yes --tag tenant:7";

const PURGE_EXAMPLES: &str = "\
It costs the same however many entries it ends. Repeated with its version, it ends nothing that is newer.

Examples:
  zerocache purge file:Big.djvu
  zerocache purge --soft --ack all --yes wiki:commons wiki:meta
  zerocache purge --namespace shop
  zerocache purge --everything --yes";

/// Who is to have a write before a command ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhoHasIt {
    /// As many replicas as this.
    Ack(Ack),
    /// Every node that the asked one knows; those that do not have it are named.
    EachNode,
}

/// How keys are written on the command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct KeyFormat {
    /// Keys are hexadecimal digits
    #[arg(long, conflicts_with = "url")]
    pub(crate) hex: bool,

    /// Keys are percent-encoded, as in the HTTP API
    #[arg(long)]
    pub(crate) url: bool,
}

impl KeyFormat {
    /// Returns the bytes of a key.
    pub(crate) fn parse(self, text: &str) -> Result<Bytes, String> {
        let bytes = if self.hex {
            from_hex(text)
                .ok_or_else(|| format!("{text:?} is no even number of hexadecimal digits"))?
        } else if self.url {
            percent_decoded(text)
                .ok_or_else(|| format!("{text:?} has a % without two hexadecimal digits"))?
        } else {
            text.as_bytes().to_vec()
        };
        Ok(bytes.into())
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = GET_EXAMPLES)]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// Print the value also if it is stale, and may be served while it is renewed or if that fails
    #[arg(long)]
    pub(crate) stale: bool,

    /// Write the value to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Say on standard error which nodes were asked, and what they answered
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = PUT_EXAMPLES)]
pub(crate) struct PutArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,

    /// The value; - or none reads standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// How long the value is fresh, such as 90s, 10m or 24h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ttl: Duration,

    /// Who has the value before the command ends: local, region or all
    #[arg(long, value_name = "WHO", default_value = "local", value_parser = parse_ack)]
    pub(crate) ack: Ack,

    /// Groups to which the entry belongs, with commas; repeatable
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,

    /// Media type with which nodes return the value over HTTP, such as image/png
    #[arg(long, value_name = "TYPE", value_parser = parse_content_type)]
    pub(crate) content_type: Option<String>,

    /// Codings that the value has already, such as gzip; it is stored as it is
    #[arg(long, value_name = "CODINGS", value_parser = parse_codings)]
    pub(crate) content_encoding: Option<String>,

    /// URL of another place that has the value; repeatable
    #[arg(long, value_name = "URL", value_parser = parse_origin)]
    pub(crate) origin: Vec<String>,

    #[command(flatten)]
    pub(crate) condition: ConditionArgs,
}

/// What must hold of a key so that a value is stored. One node judges it; two can find it met at once.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ConditionArgs {
    /// Only if there is no value
    #[arg(long)]
    pub(crate) if_absent: bool,

    /// Only if there is one
    #[arg(long)]
    pub(crate) if_present: bool,

    /// Only if the value has this version, as put and get --json print it
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<Version>,
}

impl ConditionArgs {
    /// Returns the condition, if there is one.
    pub(crate) fn condition(self) -> Option<Condition> {
        match self {
            Self { if_absent: true, .. } => Some(Condition::Absent),
            Self { if_present: true, .. } => Some(Condition::Present),
            Self { if_version, .. } => if_version.map(Condition::Version),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// The keys
    #[arg(value_name = "KEY", required_unless_present = "tag", conflicts_with = "tag")]
    pub(crate) keys: Vec<String>,

    /// The keys of the entries that have this tag and that some node holds
    #[arg(long, value_name = "TAG", value_parser = parse_tag, requires = "yes", conflicts_with_all = ["hex", "url"])]
    pub(crate) tag: Option<String>,

    #[command(flatten)]
    pub(crate) format: KeyFormat,

    /// Who knows of it before the command ends: local, region, all, or nodes: every known node, for 2 s
    #[arg(long, value_name = "WHO", default_value = "local", value_parser = parse_who)]
    pub(crate) ack: WhoHasIt,

    /// Only if the value has this version, as put and get --json print it; one key only
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["tag", "yes"])]
    pub(crate) if_version: Option<Version>,

    /// Delete more than one key, or those with a tag
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = PURGE_EXAMPLES)]
pub(crate) struct PurgeArgs {
    /// The tags
    #[arg(value_name = "TAG", required_unless_present_any = ["everything", "namespace"])]
    pub(crate) tags: Vec<String>,

    /// The results of memoized functions of clients with this namespace; "" for those without one
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tags", "everything"], value_parser = parse_namespace)]
    pub(crate) namespace: Option<String>,

    /// All entries of the cluster
    #[arg(long, conflicts_with = "tags")]
    pub(crate) everything: bool,

    /// End the fresh time only: entries with stale times may be served stale
    #[arg(long)]
    pub(crate) soft: bool,

    /// Also end what is written within this time afterwards, at most 11s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_hold)]
    pub(crate) hold: Duration,

    /// Repeat the purge that got this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) replay: Option<Version>,

    /// Who has it before the command ends: local, region, all, or nodes: every known node, for 2 s
    #[arg(long, value_name = "WHO", default_value = "region", value_parser = parse_who)]
    pub(crate) ack: WhoHasIt,

    /// Purge everything, or more than one tag
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(super) fn parse_tag(text: &str) -> Result<String, String> {
    PurgeTarget::tag(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Checks a text as what sets it in the metadata of an entry does.
fn checked(
    text: &str,
    set: impl FnOnce(&mut Metadata, &str) -> Result<(), DescriptionError>,
) -> Result<String, String> {
    set(&mut Metadata::default(), text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn parse_content_type(text: &str) -> Result<String, String> {
    checked(text, Metadata::set_content_type)
}

fn parse_codings(text: &str) -> Result<String, String> {
    checked(text, Metadata::set_content_encoding)
}

fn parse_origin(text: &str) -> Result<String, String> {
    checked(text, Metadata::add_origin)
}

fn parse_namespace(text: &str) -> Result<String, String> {
    PurgeTarget::namespace(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn parse_hold(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>().ok();
    let within = seconds.filter(|seconds| *seconds <= HOLD_MS_MAX / 1_000);
    within
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not a whole number of seconds from 0 to 11"))
}

fn parse_ack(text: &str) -> Result<Ack, String> {
    match text {
        "local" => Ok(Ack::Local),
        "region" => Ok(Ack::Region),
        "all" => Ok(Ack::All),
        _ => Err(format!("{text:?} is none of local, region, all")),
    }
}

fn parse_who(text: &str) -> Result<WhoHasIt, String> {
    match text {
        "nodes" => Ok(WhoHasIt::EachNode),
        _ => parse_ack(text).map(WhoHasIt::Ack).map_err(|error| format!("{error}, nodes")),
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('%') {
        decoded.extend_from_slice(plain.as_bytes());
        decoded.extend(from_hex(after.get(..2)?)?);
        rest = after.get(2..)?;
    }
    decoded.extend_from_slice(rest.as_bytes());
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_hex_or_percent_encoded() {
        let text = KeyFormat { hex: false, url: false };
        assert_eq!(text.parse("a%20"), Ok(Bytes::from_static(b"a%20")));
        let hex = KeyFormat { hex: true, url: false };
        assert_eq!(hex.parse("00fFa0"), Ok(Bytes::from_static(&[0, 255, 160])));
        assert!(hex.parse("abc").is_err() && hex.parse("zz").is_err());
        let url = KeyFormat { hex: false, url: true };
        assert_eq!(url.parse("a%20/+%ff"), Ok(Bytes::from_static(b"a /+\xff")));
        for bad in ["%", "%4", "%zz", "a%2", "%+1", "%é"] {
            assert!(url.parse(bad).is_err(), "{bad}");
        }
    }
}
