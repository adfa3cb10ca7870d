//! The variables of the environment that clients and nodes read, and those that nobody reads.

use std::ffi::OsString;

/// With what all of them begin.
const PREFIX: &str = "ZEROCACHE_";

/// Who reads a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// Clients and nodes.
    Both,
    /// Clients that are made from variables.
    Clients,
    /// The server.
    Nodes,
    /// The tests of this repository.
    Tests,
}

/// All variables that have a meaning. One environment may serve clients and nodes.
pub const ALL: &[(&str, ReadBy)] = &[
    ("ZEROCACHE_ADDRESS", ReadBy::Nodes),
    ("ZEROCACHE_CI_BOUNDED", ReadBy::Tests),
    ("ZEROCACHE_CLUSTER", ReadBy::Both),
    ("ZEROCACHE_COMPAT", ReadBy::Nodes),
    ("ZEROCACHE_COMPRESS_ABOVE", ReadBy::Clients),
    ("ZEROCACHE_CONNECTIONS", ReadBy::Both),
    ("ZEROCACHE_DISCOVERY", ReadBy::Both),
    ("ZEROCACHE_DNS", ReadBy::Both),
    ("ZEROCACHE_DRAIN", ReadBy::Nodes),
    ("ZEROCACHE_HEDGE", ReadBy::Clients),
    ("ZEROCACHE_LISTEN", ReadBy::Nodes),
    ("ZEROCACHE_LOG", ReadBy::Nodes),
    ("ZEROCACHE_LOG_FORMAT", ReadBy::Nodes),
    ("ZEROCACHE_MAX_BYTES", ReadBy::Nodes),
    ("ZEROCACHE_MAX_CONNECTIONS", ReadBy::Nodes),
    ("ZEROCACHE_MAX_ENTRIES", ReadBy::Nodes),
    ("ZEROCACHE_MAX_KEY_BYTES", ReadBy::Nodes),
    ("ZEROCACHE_MAX_VALUE_BYTES", ReadBy::Nodes),
    ("ZEROCACHE_MDNS_INTERFACE", ReadBy::Both),
    ("ZEROCACHE_NAMESPACE", ReadBy::Clients),
    ("ZEROCACHE_NEAR_AGE", ReadBy::Clients),
    ("ZEROCACHE_NEAR_BYTES", ReadBy::Clients),
    ("ZEROCACHE_OFFLINE", ReadBy::Clients),
    ("ZEROCACHE_PORT", ReadBy::Nodes),
    ("ZEROCACHE_PYTHON", ReadBy::Tests),
    ("ZEROCACHE_REGION", ReadBy::Nodes),
    ("ZEROCACHE_SEED", ReadBy::Both),
    ("ZEROCACHE_SNAPSHOT", ReadBy::Nodes),
    ("ZEROCACHE_TEST_HOSTS", ReadBy::Tests),
    ("ZEROCACHE_TEST_NAMESPACE", ReadBy::Tests),
    ("ZEROCACHE_TEST_SERVER", ReadBy::Tests),
    ("ZEROCACHE_WARM_MAX", ReadBy::Nodes),
    ("ZEROCACHE_ZONE", ReadBy::Nodes),
];

/// A name that differs from a known one by more than this part of its letters (1/3) is none of its
/// misspellings.
const MISSPELT_SHARE: usize = 3;

/// Names of which a sentence is made, at most: an environment can hold thousands.
const SAID_MAX: usize = 16;

/// Longer names are no misspellings: comparing two takes their lengths multiplied.
const NAME_BYTES_MAX: usize = 64;

/// A sentence about each variable of an environment that looks like one of zerocache and that nobody
/// reads.
///
/// ```
/// use zerocache_net::env_vars::unread;
///
/// let said = unknown_warnings([("ZEROCACHE_SEEDS".into(), "10.0.0.1:6789".into()), ("HOME".into(), "/".into())]);
/// assert_eq!(said.len(), 1);
/// assert!(said[0].contains("did you mean ZEROCACHE_SEED?"));
/// ```
pub fn unknown_warnings(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let text = |name: OsString| name.to_string_lossy().into_owned();
    let variables = environment.into_iter().map(|(name, value)| (text(name), text(value)));
    let ours = variables.filter(|(name, _)| name.starts_with(PREFIX));
    let unknown = ours.filter(|(name, value)| !is_known(name) && !is_of_a_service(name, value));
    let mut names: Vec<_> = unknown.map(|(name, _)| name).collect();
    names.sort_unstable();
    names.truncate(SAID_MAX);
    names.iter().map(|name| sentence(name)).collect()
}

fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

/// Whether Kubernetes or Docker set it for a service with such a name.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_port = name.ends_with("_PORT") && value.contains("://");
    let of_a_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    is_port || of_a_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

fn sentence(name: &str) -> String {
    let hint = nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("{name} is no variable of zerocache, and is ignored{hint}")
}

/// The known name that this one was probably to be.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let for_users = ALL.iter().filter(|(_, read_by)| *read_by != ReadBy::Tests);
    let distance = |known: &str| edits(&name[PREFIX.len()..], &known[PREFIX.len()..]);
    let (least, near) = for_users.map(|(known, _)| (distance(known), *known)).min()?;
    (least * MISSPELT_SHARE <= near.len() - PREFIX.len()).then_some(near)
}

/// How many letters have to be put in, taken out or replaced to make one of the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = at + 1;
        for (column, same) in other.iter().enumerate() {
            let replaced = corner + usize::from(letter != *same);
            corner = row[column + 1];
            row[column + 1] = replaced.min(corner + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Vec<String> {
        unknown_warnings(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn what_nobody_reads_is_named_with_what_it_was_probably_to_be() {
        for (wrong, right) in [
            ("ZEROCACHE_SEEDS", "ZEROCACHE_SEED"),
            ("ZEROCACHE_CLUSTR", "ZEROCACHE_CLUSTER"),
            ("ZEROCACHE_NEARBYTES", "ZEROCACHE_NEAR_BYTES"),
            ("ZEROCACHE_MDNS_INTERFACES", "ZEROCACHE_MDNS_INTERFACE"),
        ] {
            let said = said(&[(wrong, "x")]);
            assert_eq!(said.len(), 1);
            assert!(
                said[0].starts_with(wrong) && said[0].contains(&format!("{right}?")),
                "{said:?}"
            );
        }
        let said = said(&[("ZEROCACHE_WEATHER_REPORT", "x")]);
        assert!(said[0].contains("is ignored") && !said[0].contains("did you"), "{said:?}");
    }

    #[test]
    fn what_is_read_or_set_for_a_service_is_not_mentioned() {
        let known: Vec<_> = ALL.iter().map(|(name, _)| (*name, "x")).collect();
        assert!(said(&known).is_empty());
        assert!(
            said(&[
                ("ZEROCACHE_SERVICE_HOST", "10.0.0.1"),
                ("ZEROCACHE_NODES_SERVICE_PORT_HTTP", "6789"),
                ("ZEROCACHE_NODES_PORT", "tcp://10.0.0.1:6789"),
                ("ZEROCACHE_NODES_PORT_6789_TCP_ADDR", "10.0.0.1"),
                ("ZEROCACHE_PORT_6789_TCP", "tcp://10.0.0.1:6789"),
                ("CACHE_SEEDS", "x"),
            ])
            .is_empty()
        );
        assert_eq!(said(&[("ZEROCACHE_NODES_PORT", "6789")]).len(), 1);
    }

    #[test]
    fn names_are_in_order_and_their_number_is_bounded() {
        assert!(ALL.is_sorted_by(|(one, _), (other, _)| one < other));
        let many: Vec<_> = (0..100).map(|n| format!("ZEROCACHE_{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(said(&many).len(), SAID_MAX);
        let long = format!("ZEROCACHE_{}", "x".repeat(1 << 16));
        assert_eq!(said(&[(&long, "")]).len(), 1);
    }
}
