//! What settings are allowed, and how variables are read.

use zerocache_net::env_vars::ReadBy;

use super::*;

fn config(variables: &[(&str, &str)]) -> Result<Config, Error> {
    Config::from_variables("oslo", false, |name| {
        let found = variables.iter().find(|(other, _)| *other == name);
        Ok(found.map(|(_, value)| (*value).to_owned()))
    })
}

#[test]
fn environment_uses_the_variables_of_the_nodes() {
    let config = config(&[
        ("ZEROCACHE_CLUSTER", "staging"),
        ("ZEROCACHE_NAMESPACE", "shop"),
        ("ZEROCACHE_DISCOVERY", "seeds, dns"),
        ("ZEROCACHE_SEED", "127.0.0.2:6789, [::1]:6789"),
        ("ZEROCACHE_DNS", "zerocache.default.svc:6789"),
        ("ZEROCACHE_MDNS_INTERFACE", ""),
        ("ZEROCACHE_HEDGE", "0.05"),
    ])
    .unwrap();
    assert_eq!((config.cluster.as_str(), config.namespace.as_str()), ("staging", "shop"));
    assert_eq!(config.discovery_methods, DiscoverySet { mdns: false, dns: true, seeds: true });
    assert_eq!((config.seeds.len(), config.dns.len()), (2, 1));
    assert!(config.discovery().mdns.is_none());
    assert_eq!(config.hedge, HedgeShare::new(0.05));
}

#[cfg(feature = "http-fallback")]
#[test]
fn environment_selects_http_connections() {
    let config = config(&[("ZEROCACHE_CONNECTIONS", "http")]).unwrap();
    assert_eq!(config.connections, Connections::Http);
}

#[cfg(feature = "lz4")]
#[test]
fn environment_sets_the_size_above_which_values_are_compressed() {
    assert_eq!(config(&[]).unwrap().compress_above, Some(COMPRESS_ABOVE_DEFAULT));
    let config = config(&[("ZEROCACHE_COMPRESS_ABOVE", "4KiB")]).unwrap();
    assert_eq!(config.compress_above, Some(4_096));
}

#[test]
fn compression_and_hedging_can_be_turned_off() {
    let off = config(&[("ZEROCACHE_COMPRESS_ABOVE", "off"), ("ZEROCACHE_HEDGE", "off")]).unwrap();
    assert_eq!((off.compress_above, off.hedge), (None, None));
}

#[test]
fn program_built_for_tests_uses_no_network_by_default() {
    let offline = |variable: Option<&str>| {
        let given = |name: &str| variable.filter(|_| name == "ZEROCACHE_OFFLINE");
        let config =
            Config::from_variables("oslo", true, |name| Ok(given(name).map(str::to_owned)));
        config.unwrap().offline
    };
    assert!(offline(None) && offline(Some("")) && offline(Some("true")));
    assert!(!offline(Some("false")));
    assert!(!config(&[]).unwrap().offline);
    assert!(config(&[("ZEROCACHE_OFFLINE", "true")]).unwrap().offline);
    let is_test = |path: &str| is_built_for_tests(Path::new(path));
    assert!(is_test("/home/a/target/debug/deps/orders-0123456789abcdef"));
    assert!(is_test("/tmp/rustdoctestXyz/rust_out"));
    assert!(!is_test("/home/a/target/debug/orders") && !is_test("/usr/bin/orders"));
    assert!(!is_test("/srv/deps/orders-service") && !is_test("/srv/orders-0123456789abcdef"));
    // This test itself.
    assert!(is_built_for_tests(&std::env::current_exe().expect("it has a path")));
}

/// Returns the first two columns of the documented table of settings.
fn documented() -> String {
    let page = include_str!("../../../../docs/client.md");
    let (_, table) = page.split_once("\n## All settings\n").expect("the page has such a section");
    let rows = table.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').skip(1).take(2)).collect()
}

#[test]
fn documentation_lists_every_setting_and_no_other() {
    let table = documented();
    // environment.rs reads the region, before all others.
    let read = std::cell::RefCell::new(vec!["`ZEROCACHE_REGION`".to_owned()]);
    let variable = |name: &str| {
        read.borrow_mut().push(format!("`{name}`"));
        Ok(None)
    };
    Config::from_variables("oslo", false, variable).expect("nothing is set");
    let read = read.into_inner();
    let clients = [ReadBy::Clients, ReadBy::Both];
    let known = env_vars::ALL.iter().filter(|(_, by)| clients.contains(by));
    let known: Vec<_> = known.map(|(name, _)| format!("`{name}`")).collect();
    assert!(known.iter().all(|name| read.contains(name)), "{known:?} {read:?}");
    assert_eq!(known.len(), read.len());
    assert!(read.iter().all(|name| table.contains(name)), "{read:?} {table}");
    assert_eq!(table.matches("ZEROCACHE_").count(), read.len(), "{table}");
    let builder = include_str!("../builder.rs").lines();
    let methods = builder.filter_map(|line| line.strip_prefix("    pub fn "));
    let methods = methods.map(|method| method.split(['(', '<']).next().unwrap_or_default());
    let settings = methods.filter(|name| !["build", "install"].contains(name));
    let missing: Vec<_> = settings.filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?} {table}");
}

#[test]
fn error_names_the_variable_and_the_value() {
    for (name, value) in [
        ("ZEROCACHE_SEED", "nowhere"),
        ("ZEROCACHE_DNS", "a:0"),
        ("ZEROCACHE_DISCOVERY", "magic"),
        ("ZEROCACHE_MDNS_INTERFACE", "a b"),
        ("ZEROCACHE_CONNECTIONS", "grpc"),
        ("ZEROCACHE_COMPRESS_ABOVE", "much"),
        ("ZEROCACHE_HEDGE", "1.5"),
        ("ZEROCACHE_OFFLINE", "perhaps"),
        ("ZEROCACHE_HEDGE", "a few"),
        ("ZEROCACHE_CLUSTER", "a b"),
        ("ZEROCACHE_NAMESPACE", "a b"),
        ("ZEROCACHE_NEAR_AGE", "0"),
        ("ZEROCACHE_NEAR_AGE", "soon"),
        ("ZEROCACHE_NEAR_OUTAGE", "25h"),
        ("ZEROCACHE_NEAR_OUTAGE", "long"),
        ("ZEROCACHE_NEAR_BYTES", "64 Mb/s"),
        ("ZEROCACHE_TLS", "perhaps"),
    ] {
        let error = config(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        // The error shows the value, or what is allowed.
        assert!(error.contains(value) || error.contains("allowed"), "{error}");
    }
    let seeds = vec!["a:1"; NAMES_MAX + 1].join(",");
    let error = config(&[("ZEROCACHE_SEED", &seeds)]).unwrap_err().to_string();
    assert!(error.contains("ZEROCACHE_SEED") && error.contains("at most"), "{error}");
    let error = config(&[("ZEROCACHE_DISCOVERY", "seeds")]).unwrap_err().to_string();
    assert!(error.contains("ZEROCACHE_SEED"), "{error}");
}
