//! The environment variables that clients and nodes read, and warnings about unknown ones.

use std::ffi::OsString;

/// The prefix of all variables.
const PREFIX: &str = "ZEROCACHE_";

/// The programs that read a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// Clients and nodes.
    Both,
    /// Clients that are configured by variables.
    Clients,
    /// The server.
    Nodes,
    /// The tests of this repository.
    Tests,
}

/// All known variables. One environment may serve clients and nodes.
pub const ALL: &[(&str, ReadBy)] = &[
    ("ZEROCACHE_ACCESS", ReadBy::Nodes),
    ("ZEROCACHE_ADDRESS", ReadBy::Nodes),
    ("ZEROCACHE_ADMIN_LISTEN", ReadBy::Nodes),
    ("ZEROCACHE_ALLOWED_HOST", ReadBy::Nodes),
    ("ZEROCACHE_CI_BOUNDED", ReadBy::Tests),
    ("ZEROCACHE_CLUSTER", ReadBy::Both),
    ("ZEROCACHE_CODEC", ReadBy::Clients),
    ("ZEROCACHE_COMPAT", ReadBy::Nodes),
    ("ZEROCACHE_COMPAT_LISTEN", ReadBy::Nodes),
    ("ZEROCACHE_COMPRESS_ABOVE", ReadBy::Clients),
    ("ZEROCACHE_CONNECTIONS", ReadBy::Both),
    ("ZEROCACHE_DISCOVERY", ReadBy::Both),
    ("ZEROCACHE_DISK", ReadBy::Nodes),
    ("ZEROCACHE_DISK_ADMIT", ReadBy::Nodes),
    ("ZEROCACHE_DISK_BYTES", ReadBy::Nodes),
    ("ZEROCACHE_DISK_MIN_VALUE", ReadBy::Nodes),
    ("ZEROCACHE_DNS", ReadBy::Both),
    ("ZEROCACHE_DRAIN", ReadBy::Nodes),
    ("ZEROCACHE_EVICTION", ReadBy::Nodes),
    ("ZEROCACHE_HEDGE", ReadBy::Clients),
    ("ZEROCACHE_HOT_KEYS", ReadBy::Nodes),
    ("ZEROCACHE_INSECURE", ReadBy::Nodes),
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
    ("ZEROCACHE_NEAR_OUTAGE", ReadBy::Clients),
    ("ZEROCACHE_NODE_NAME", ReadBy::Nodes),
    ("ZEROCACHE_OFFLINE", ReadBy::Clients),
    ("ZEROCACHE_PAGE", ReadBy::Nodes),
    ("ZEROCACHE_PORT", ReadBy::Nodes),
    ("ZEROCACHE_PROMTOOL", ReadBy::Tests),
    ("ZEROCACHE_PYTHON", ReadBy::Tests),
    ("ZEROCACHE_REGION", ReadBy::Both),
    ("ZEROCACHE_REPLICAS", ReadBy::Nodes),
    ("ZEROCACHE_SECRET", ReadBy::Both),
    ("ZEROCACHE_SECRET_FILE", ReadBy::Both),
    ("ZEROCACHE_SEED", ReadBy::Both),
    ("ZEROCACHE_SNAPSHOT", ReadBy::Nodes),
    ("ZEROCACHE_TEST_HOSTS", ReadBy::Tests),
    ("ZEROCACHE_TEST_NAMESPACE", ReadBy::Tests),
    ("ZEROCACHE_TEST_SERVER", ReadBy::Tests),
    ("ZEROCACHE_TLS", ReadBy::Both),
    ("ZEROCACHE_TLS_CA", ReadBy::Both),
    ("ZEROCACHE_TLS_CERT", ReadBy::Both),
    ("ZEROCACHE_TLS_KEY", ReadBy::Both),
    ("ZEROCACHE_TLS_NAME", ReadBy::Nodes),
    ("ZEROCACHE_TLS_SERVER_NAME", ReadBy::Both),
    ("ZEROCACHE_TOKEN", ReadBy::Clients),
    ("ZEROCACHE_TOKEN_FILE", ReadBy::Clients),
    ("ZEROCACHE_WARM_MAX", ReadBy::Nodes),
    ("ZEROCACHE_ZONE", ReadBy::Both),
];

/// A name that differs from a known one by more than this share of its letters (1/3) is no misspelling of it.
const MISSPELLING_SHARE: usize = 3;

/// The most warnings: an environment can hold thousands of variables.
const WARNINGS_MAX: usize = 16;

/// Longer names are not compared: the cost is the product of the lengths.
const NAME_BYTES_MAX: usize = 64;

/// Returns a warning for each variable of an environment that has the prefix and that no program reads.
///
/// ```
/// use zerocache_net::env_vars::unknown_warnings;
///
/// let warnings = unknown_warnings([("ZEROCACHE_SEEDS".into(), "10.0.0.1:6789".into()), ("HOME".into(), "/".into())]);
/// assert_eq!(warnings.len(), 1);
/// assert!(warnings[0].contains("did you mean ZEROCACHE_SEED?"));
/// ```
pub fn unknown_warnings(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let text = |name: OsString| name.to_string_lossy().into_owned();
    let variables = environment.into_iter().map(|(name, value)| (text(name), text(value)));
    let ours = variables.filter(|(name, _)| name.starts_with(PREFIX));
    let unknown = ours.filter(|(name, value)| !is_known(name) && !is_service_variable(name, value));
    let mut names: Vec<_> = unknown.map(|(name, _)| name).collect();
    names.sort_unstable();
    names.truncate(WARNINGS_MAX);
    names.iter().map(|name| warning(name)).collect()
}

fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

/// Whether Kubernetes or Docker set the variable for a service with such a name.
fn is_service_variable(name: &str, value: &str) -> bool {
    let is_port = name.ends_with("_PORT") && value.contains("://");
    let of_a_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    is_port || of_a_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

fn warning(name: &str) -> String {
    let hint = nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("{name} is not a zerocache variable and is ignored{hint}")
}

/// Returns the known name of which this one is probably a misspelling.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let for_users = ALL.iter().filter(|(_, read_by)| *read_by != ReadBy::Tests);
    let distance = |known: &str| edit_distance(&name[PREFIX.len()..], &known[PREFIX.len()..]);
    let (least, near) = for_users.map(|(known, _)| (distance(known), *known)).min()?;
    (least * MISSPELLING_SHARE <= near.len() - PREFIX.len()).then_some(near)
}

/// Returns the edit distance of two names: letters inserted, removed or replaced.
fn edit_distance(one: &str, other: &str) -> usize {
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

    fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
        unknown_warnings(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn unknown_variable_is_reported_with_the_nearest_known_name() {
        for (wrong, right) in [
            ("ZEROCACHE_SEEDS", "ZEROCACHE_SEED"),
            ("ZEROCACHE_CLUSTR", "ZEROCACHE_CLUSTER"),
            ("ZEROCACHE_NEARBYTES", "ZEROCACHE_NEAR_BYTES"),
            ("ZEROCACHE_MDNS_INTERFACES", "ZEROCACHE_MDNS_INTERFACE"),
        ] {
            let warnings = warnings(&[(wrong, "x")]);
            assert_eq!(warnings.len(), 1);
            assert!(
                warnings[0].starts_with(wrong) && warnings[0].contains(&format!("{right}?")),
                "{warnings:?}"
            );
        }
        let warnings = warnings(&[("ZEROCACHE_WEATHER_REPORT", "x")]);
        assert!(
            warnings[0].contains("is ignored") && !warnings[0].contains("did you"),
            "{warnings:?}"
        );
    }

    #[test]
    fn known_variables_and_those_of_services_are_not_reported() {
        let known: Vec<_> = ALL.iter().map(|(name, _)| (*name, "x")).collect();
        assert!(warnings(&known).is_empty());
        assert!(
            warnings(&[
                ("ZEROCACHE_SERVICE_HOST", "10.0.0.1"),
                ("ZEROCACHE_NODES_SERVICE_PORT_HTTP", "6789"),
                ("ZEROCACHE_NODES_PORT", "tcp://10.0.0.1:6789"),
                ("ZEROCACHE_NODES_PORT_6789_TCP_ADDR", "10.0.0.1"),
                ("ZEROCACHE_PORT_6789_TCP", "tcp://10.0.0.1:6789"),
                ("CACHE_SEEDS", "x"),
            ])
            .is_empty()
        );
        assert_eq!(warnings(&[("ZEROCACHE_NODES_PORT", "6789")]).len(), 1);
    }

    #[test]
    fn known_names_are_sorted_and_warnings_are_bounded() {
        assert!(ALL.is_sorted_by(|(one, _), (other, _)| one < other));
        let many: Vec<_> = (0..100).map(|n| format!("ZEROCACHE_{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(warnings(&many).len(), WARNINGS_MAX);
        let long = format!("ZEROCACHE_{}", "x".repeat(1 << 16));
        assert_eq!(warnings(&[(&long, "")]).len(), 1);
    }
}
