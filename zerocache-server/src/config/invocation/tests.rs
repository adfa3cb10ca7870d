//! Flags and variables, with an environment that is passed in.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::{Compat, EvictionPolicy, Interface, LogFormat, TlsMode};
use super::*;

fn parse(flags: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, EarlyExit> {
    let argv = std::iter::once("zerocache-server").chain(flags.iter().copied());
    Invocation::parse(argv.map(OsString::from).collect(), |name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    })
}

fn server(flags: &[&str], variables: &[(&str, &str)]) -> ServerConfig {
    match parse(flags, variables) {
        Ok(invocation) => invocation.server,
        Err(stop) => panic!("{stop:?}"),
    }
}

fn usage_error(flags: &[&str], variables: &[(&str, &str)]) -> String {
    match parse(flags, variables) {
        Err(EarlyExit::UsageError(line)) => {
            assert!(!line.contains('\n'), "{line}");
            line
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn command_definition_is_valid() {
    command().debug_assert();
}

#[test]
fn region_alone_gives_the_defaults() {
    let config = server(&["--region", "london"], &[]);
    assert_eq!(config, ServerConfig::new("london"));
    assert_eq!((config.cluster.as_str(), config.port), ("zerocache", 6789));
    assert_eq!((config.drain, config.warm_max), (DRAIN_DEFAULT, WARM_MAX_DEFAULT));
    assert_eq!(config.max_key_bytes, 1024);
    assert!(config.max_connections > 10_000);
}

#[test]
fn every_flag_has_a_variable() {
    let config = server(
        &[],
        &[
            ("ZEROCACHE_REGION", "london"),
            ("ZEROCACHE_CLUSTER", "staging"),
            ("ZEROCACHE_ZONE", "a"),
            ("ZEROCACHE_ADDRESS", "127.0.0.2, 10.0.0.1,"),
            ("ZEROCACHE_PORT", "7000"),
            ("ZEROCACHE_LISTEN", "0.0.0.0:7001"),
            ("ZEROCACHE_DISCOVERY", "seeds,dns"),
            ("ZEROCACHE_SEED", "a:1,b:2"),
            ("ZEROCACHE_DNS", "nodes.example:6789"),
            ("ZEROCACHE_MDNS_INTERFACE", "lo"),
            ("ZEROCACHE_MAX_ENTRIES", "1000"),
            ("ZEROCACHE_EVICTION", "lru"),
            ("ZEROCACHE_MAX_BYTES", "64MiB"),
            ("ZEROCACHE_MAX_KEY_BYTES", "2KiB"),
            ("ZEROCACHE_MAX_VALUE_BYTES", "1m"),
            ("ZEROCACHE_MAX_CONNECTIONS", "50"),
            ("ZEROCACHE_DRAIN", "250ms"),
            ("ZEROCACHE_WARM_MAX", "5"),
            ("ZEROCACHE_CONNECTIONS", "http"),
            ("ZEROCACHE_COMPAT", "zerocache-py"),
            ("ZEROCACHE_COMPAT_LISTEN", "127.0.0.1:6790"),
            ("ZEROCACHE_INSECURE", "true"),
            ("ZEROCACHE_ALLOWED_HOST", "cache.shop.example, node.shop.example"),
        ],
    );
    assert_eq!(config.zone.as_deref(), Some("a"));
    assert_eq!(config.addresses, [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!((config.port, config.listen.map(|l| l.port())), (7000, Some(7001)));
    assert_eq!(config.discovery, DiscoverySet { mdns: false, dns: true, seeds: true });
    assert_eq!(config.seeds.len(), 2);
    assert_eq!(config.dns[0].to_string(), "nodes.example:6789");
    assert_eq!(config.mdns_interface, Some(Interface::Name("lo".into())));
    assert_eq!(config.max_entries, Some(1000));
    assert_eq!(config.eviction, EvictionPolicy::Lru);
    assert_eq!((config.max_bytes, config.max_value_bytes), (64 << 20, Some(1 << 20)));
    assert_eq!((config.max_key_bytes, config.max_connections), (2048, 50));
    assert_eq!(config.drain, Duration::from_millis(250));
    assert_eq!(config.warm_max, Duration::from_secs(5));
    assert_eq!(config.compat, Some(Compat::ZerocachePy));
    assert_eq!(config.connections, zerocache_net::transport::Connections::Http);
    assert_eq!(config.cluster, "staging");
    assert!(config.insecure);
    assert_eq!(config.compat_listen.map(|listen| listen.port()), Some(6790));
    assert_eq!(config.allowed_hosts, ["cache.shop.example", "node.shop.example"]);
}

#[test]
fn credentials_come_from_variables_too() {
    let secret = "zcs1_not-looked-at-here";
    let config = server(
        &[],
        &[
            ("ZEROCACHE_REGION", "london"),
            ("ZEROCACHE_SECRET", secret),
            ("ZEROCACHE_TLS", "optional"),
            ("ZEROCACHE_TLS_NAME", "cache.shop.example"),
            ("ZEROCACHE_TLS_SERVER_NAME", "shop.example"),
            ("ZEROCACHE_ACCESS", "/etc/zerocache/access.toml"),
        ],
    );
    assert_eq!(config.secret, Some(Source::Value(secret.into())));
    assert_eq!(config.tls, Some(TlsMode::Optional));
    assert_eq!(config.tls_names, ["cache.shop.example"]);
    assert_eq!(config.tls_server_name.as_deref(), Some("shop.example"));
    assert_eq!(config.access, Some("/etc/zerocache/access.toml".into()));
    assert!(!format!("{config:?}").contains(secret));
    let config = server(
        &[],
        &[
            ("ZEROCACHE_REGION", "london"),
            ("ZEROCACHE_SECRET_FILE", "secret"),
            ("ZEROCACHE_SECRET", ""),
            ("ZEROCACHE_TLS_CERT", "node.pem"),
            ("ZEROCACHE_TLS_KEY", "node.key"),
            ("ZEROCACHE_TLS_CA", "ca.pem"),
        ],
    );
    assert_eq!(config.secret, Some(Source::File("secret".into())));
    assert_eq!(config.tls_files.key, Some("node.key".into()));
    let both =
        usage_error(&["--region", "x", "--secret-file", "f"], &[("ZEROCACHE_SECRET", secret)]);
    assert_eq!(both, "ZEROCACHE_SECRET and --secret-file are both given; use one of them");
    let insecure = usage_error(&["--region", "x", "--insecure"], &[("ZEROCACHE_SECRET", secret)]);
    assert!(insecure.starts_with("--insecure: "), "{insecure}");
}

#[test]
fn variable_of_a_flag_without_value_is_true_or_false() {
    let region = ("ZEROCACHE_REGION", "x");
    let insecure =
        |flags: &[&str], value| server(flags, &[region, ("ZEROCACHE_INSECURE", value)]).insecure;
    assert!(insecure(&[], "true"));
    assert!(!insecure(&[], "false") && !insecure(&[], ""));
    assert!(insecure(&["--insecure"], "false") && insecure(&["--insecure"], "maybe"));
    let error = usage_error(&[], &[region, ("ZEROCACHE_INSECURE", "1")]);
    assert_eq!(error, "ZEROCACHE_INSECURE: \"1\" is not known; use true or false");
}

#[test]
fn flag_overrides_variable_and_empty_variable_is_unset() {
    let variables =
        [("ZEROCACHE_REGION", "paris"), ("ZEROCACHE_ZONE", ""), ("ZEROCACHE_SEED", "a:1")];
    let config = server(&["--region=london", "--seed", "b:2", "--seed", "c:3"], &variables);
    assert_eq!((config.region.as_str(), config.zone), ("london", None));
    let seeds: Vec<String> = config.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["b:2", "c:3"]);
    // A wrong variable is ignored when the flag is given.
    assert_eq!(server(&["--region", "x", "--port", "1"], &[("ZEROCACHE_PORT", "x")]).port, 1);
}

#[test]
fn listen_port_is_announced_by_default() {
    let config = server(&["--region", "x", "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(config.port, 0);
    let config = server(&["--region", "x", "--listen", "127.0.0.1:1", "--port", "2"], &[]);
    assert_eq!(config.port, 2);
}

#[test]
fn log_settings() {
    let invocation =
        parse(&["--region", "x", "--log-format", "json"], &[("ZEROCACHE_LOG", "debug")]);
    let log = invocation.expect("no error").log;
    assert_eq!((log.format, log.filter.as_str()), (LogFormat::Json, "debug"));
}

#[test]
fn usage_error_is_one_line_that_names_the_setting() {
    let region = ["--region", "x"];
    let with = |flag: &str, value: &str| usage_error(&[&region[..], &[flag, value]].concat(), &[]);
    let size = "\"12q\" is not a size; use bytes, or a number with KiB, MiB, GiB";
    assert_eq!(with("--max-bytes", "12q"), format!("--max-bytes: {size}"));
    let from_variable = usage_error(&region, &[("ZEROCACHE_MAX_BYTES", "12q")]);
    assert_eq!(from_variable, format!("ZEROCACHE_MAX_BYTES: {size}"));
    for (flag, value) in [
        ("--cluster", "a/b"),
        ("--zone", "a b"),
        ("--node-name", "a b"),
        ("--replicas", "0"),
        ("--replicas", "9"),
        ("--replicas", "some"),
        ("--address", "localhost"),
        ("--address", "0.0.0.0"),
        ("--port", "65536"),
        ("--listen", ":6789"),
        ("--discovery", "magic"),
        ("--discovery", "none,mdns"),
        ("--discovery", "seeds"),
        ("--discovery", "dns"),
        ("--seed", "london-1"),
        ("--dns", "name"),
        ("--mdns-interface", "not an interface"),
        ("--max-entries", "0"),
        ("--max-entries", "many"),
        ("--eviction", "fifo"),
        ("--max-key-bytes", "1g"),
        ("--max-value-bytes", "999t"),
        ("--max-connections", "0"),
        ("--drain", "soon"),
        ("--warm-max", "2h"),
        ("--connections", "grpc"),
        ("--compat", "redis"),
        ("--compat-listen", "127.0.0.1:1"),
        ("--tls", "yes"),
        ("--tls", "required"),
        ("--access", "access.toml"),
        ("--tls-name", "a b"),
        ("--allowed-host", "a b"),
        ("--log", "info,=,="),
        ("--log-format", "xml"),
    ] {
        let line = with(flag, value);
        assert!(line.starts_with(&format!("{flag}: ")), "{line}");
    }
    assert!(usage_error(&[], &[]).starts_with("--region: missing"));
    assert!(
        usage_error(&["--region", "v1"], &[])
            .starts_with("--region: a region must not be called \"v1\"")
    );
    assert!(usage_error(&[], &[("ZEROCACHE_REGION", "v1")]).starts_with("ZEROCACHE_REGION: "));
    assert!(usage_error(&["--regoin", "x"], &[]).ends_with("did you mean --region?"));
    assert!(usage_error(&["--region"], &[]).contains("--region"));
    assert!(usage_error(&["london"], &[]).contains("london"));
}

#[test]
fn help_has_examples_and_names_the_variables() {
    let Err(EarlyExit::Info(help)) = parse(&["--help"], &[]) else { panic!("no help") };
    for part in ["Examples:", "[ZEROCACHE_MAX_VALUE_BYTES]", "[default: 6789]", "Identity"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    let Err(EarlyExit::Info(version)) = parse(&["--version"], &[]) else { panic!("no version") };
    assert!(version.starts_with("zerocache-server "), "{version}");
}

#[test]
fn table_of_variables_matches_the_flags() {
    let command = command();
    let flags = command.get_arguments().filter(|arg| has_variable(arg));
    let mut read: Vec<_> = flags.filter_map(|arg| arg.get_long().map(variable_name)).collect();
    read.push(SECRET.to_owned());
    read.sort_unstable();
    let nodes = [env_vars::ReadBy::Nodes, env_vars::ReadBy::Both];
    let listed = env_vars::ALL.iter().filter(|(_, by)| nodes.contains(by)).map(|(name, _)| *name);
    assert_eq!(read, listed.collect::<Vec<_>>());
}

#[test]
fn port_set_by_kubernetes_is_ignored_with_a_warning() {
    let invocation = parse(&["--region", "x"], &[("ZEROCACHE_PORT", "tcp://10.0.0.1:6789")]);
    let invocation = invocation.expect("no error");
    assert_eq!((invocation.server.port, invocation.warnings.len()), (6789, 1));
}
