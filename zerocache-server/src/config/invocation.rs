//! Reads the command line and the environment: gives a configuration, or one line with the error.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use super::args::Args;
use super::disk::DiskFlags;
use super::server::{CONNECTIONS_MAX_DEFAULT, ConfigError, PORT_DEFAULT, ServerConfig};
use super::server::{DRAIN_DEFAULT, KEY_BYTES_DEFAULT, WARM_MAX_DEFAULT};
use super::values::{LogConfig, PageMode};
use zerocache_net::{
    discovery::DiscoverySet,
    env_vars,
    security::{Source, TlsFiles},
};

/// The variable with the secret itself. It has no flag: every user of the machine sees flags.
const SECRET: &str = "ZEROCACHE_SECRET";

/// The exit code of a wrong configuration.
const EXIT_USAGE_ERROR: u8 = 2;

/// The configuration that the command line and the environment ask for.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The validated configuration of the node.
    pub server: ServerConfig,
    /// The configuration of the logs.
    pub log: LogConfig,
    /// Ignored variables, one sentence each, to be logged as warnings.
    pub warnings: Vec<String>,
}

/// The reason to exit without running a node.
#[derive(Debug)]
pub enum EarlyExit {
    /// The help or the version, as requested.
    Info(String),
    /// The configuration is wrong: one line, without a line break.
    UsageError(String),
}

impl EarlyExit {
    /// Prints the text on standard output or the error on standard error. Returns the exit code: 0 or 2.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        // Errors of a closed pipe cannot be reported.
        match self {
            Self::Info(text) => {
                let _ = std::io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Self::UsageError(line) => {
                // A wrong value may contain line breaks.
                let line = line.replace(char::is_control, " ");
                let _ = writeln!(std::io::stderr(), "error: {line}");
                ExitCode::from(EXIT_USAGE_ERROR)
            }
        }
    }
}

impl Invocation {
    /// Reads `argv` (with the program's name first) and this process's environment.
    ///
    /// # Errors
    /// [`EarlyExit`] when help or the version was requested, or when the configuration is wrong.
    pub fn with_environment(argv: Vec<OsString>) -> Result<Self, EarlyExit> {
        let mut parsed = Self::parse(argv, |name| std::env::var_os(name))?;
        parsed.warnings.extend(env_vars::unknown_warnings(std::env::vars_os()));
        Ok(parsed)
    }

    /// Reads `argv` (with the program's name first) and the variables that `variable` returns.
    ///
    /// # Errors
    /// [`EarlyExit`] when help or the version was requested, or when the configuration is wrong.
    pub fn parse(
        mut argv: Vec<OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EarlyExit> {
        let command = command();
        let mut sources = ValueSources::default();
        let mut warnings = Vec::new();
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long().filter(|_| has_variable(arg)) else {
                continue;
            };
            let name = variable_name(flag);
            let Some(value) = variable(&name).filter(|v| !v.is_empty() && !is_given(&argv, flag))
            else {
                continue;
            };
            let Ok(value) = value.into_string() else {
                return Err(EarlyExit::UsageError(format!("{name}: the value is not UTF-8")));
            };
            if flag == "port" && value.starts_with("tcp://") {
                warnings.push(format!(
                    "{name}={value} is ignored: Kubernetes sets it for a Service called zerocache"
                ));
                continue;
            }
            if !takes_value(arg) {
                match value.as_str() {
                    "true" => argv.push(format!("--{flag}").into()),
                    "false" => {}
                    _ => {
                        let reason = format!("{value:?} is not known; use true or false");
                        return Err(EarlyExit::UsageError(format!("{name}: {reason}")));
                    }
                }
                sources.variables.push(flag.to_owned());
                continue;
            }
            let value =
                if arg.get_value_delimiter().is_some() { normalize_list(&value) } else { value };
            argv.push(format!("--{flag}={value}").into());
            sources.variables.push(flag.to_owned());
        }
        let matches = command.try_get_matches_from(argv).map_err(|e| sources.early_exit(&e))?;
        let args = Args::from_arg_matches(&matches).map_err(|e| sources.early_exit(&e))?;
        let secret = secret(args.secret_file.as_ref(), &variable)?;
        let (server, log) = resolve(args, secret).map_err(|e| sources.usage_error(&e))?;
        Ok(Self { server, log, warnings })
    }
}

/// Returns where the secret is.
fn secret(
    file: Option<&PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Source>, EarlyExit> {
    let value = variable(SECRET).filter(|value| !value.is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(EarlyExit::UsageError(format!(
            "{SECRET} and --secret-file are both given; use one of them"
        ))),
        // What is not UTF-8 is no secret either.
        (Some(value), None) => Ok(Some(Source::Value(value.to_string_lossy().into_owned()))),
        (None, file) => Ok(file.cloned().map(Source::File)),
    }
}

/// The command line of `zerocache-server`, with the variable of each flag in its help.
#[must_use]
pub fn command() -> Command {
    Args::command().mut_args(|arg| {
        let Some(flag) = arg.get_long().filter(|_| has_variable(&arg)) else {
            return arg;
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [{}]", variable_name(flag));
        arg.help(help)
    })
}

/// Whether a variable may stand for the flag: all but those that print something.
fn has_variable(arg: &Arg) -> bool {
    takes_value(arg) || matches!(arg.get_action(), ArgAction::SetTrue)
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn variable_name(flag: &str) -> String {
    format!("ZEROCACHE_{}", flag.replace('-', "_").to_uppercase())
}

/// Returns whether a flag is on the command line. No flag takes a value that begins with a dash, so an
/// argument that looks like the flag is the flag.
fn is_given(argv: &[OsString], flag: &str) -> bool {
    argv.iter()
        .filter_map(|arg| arg.to_str()?.strip_prefix("--")?.strip_prefix(flag))
        .any(|rest| rest.is_empty() || rest.starts_with('='))
}

/// Removes spaces and empty items from the list in a variable.
fn normalize_list(list: &str) -> String {
    let items: Vec<&str> = list.split(',').map(str::trim).filter(|i| !i.is_empty()).collect();
    items.join(",")
}

/// The sources of values, so that an error names what the user wrote.
#[derive(Default)]
struct ValueSources {
    /// Flags whose value came from their variable.
    variables: Vec<String>,
}

impl ValueSources {
    fn name(&self, flag: &str) -> String {
        if self.variables.iter().any(|known| known == flag) {
            variable_name(flag)
        } else {
            format!("--{flag}")
        }
    }

    fn usage_error(&self, error: &ConfigError) -> EarlyExit {
        EarlyExit::UsageError(format!("{}: {}", self.name(error.setting()), error.reason()))
    }

    /// Reduces an error of the parser, which has several lines, to the relevant one.
    fn early_exit(&self, error: &clap::Error) -> EarlyExit {
        use std::error::Error as _;
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                return EarlyExit::Info(error.render().to_string());
            }
            ErrorKind::ValueValidation => {
                if let (Some(flag), Some(reason)) = (invalid_flag(error), error.source()) {
                    return EarlyExit::UsageError(format!("{}: {reason}", self.name(&flag)));
                }
            }
            _ => {}
        }
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let hint = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(near)) => format!("; did you mean {near}?"),
            _ => "; see --help".to_owned(),
        };
        EarlyExit::UsageError(format!("{line}{hint}"))
    }
}

/// Returns the flag that an error of the parser is about, without dashes.
fn invalid_flag(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = arg.split_whitespace().next()?.strip_prefix("--")?;
    Some(flag.to_owned())
}

/// Fills in the defaults and validates the result.
fn resolve(args: Args, secret: Option<Source>) -> Result<(ServerConfig, LogConfig), ConfigError> {
    let region = args.region.clone().ok_or_else(|| {
        let reason =
            "missing; use --region NAME, for example --region london, or set ZEROCACHE_REGION";
        ConfigError::new("region", reason.to_owned())
    })?;
    let discovery = discovery(&args)?;
    let mut config = ServerConfig::new(region);
    config.discovery = discovery;
    if let Some(cluster) = args.cluster {
        config.cluster = cluster;
    }
    config.zone = args.zone;
    config.node_name = args.node_name;
    config.replicas = args.replicas.unwrap_or_default();
    config.addresses = args.address;
    // With a listen address and no port, the port of the listen address is announced.
    let listen_port = args.listen.map(|listen| listen.port());
    config.port = args.port.or(listen_port).unwrap_or(PORT_DEFAULT);
    config.listen = args.listen;
    config.seeds = args.seed;
    config.dns = args.dns;
    config.mdns_interface = args.mdns_interface;
    config.max_bytes = args.max_bytes.unwrap_or(config.max_bytes);
    config.max_entries = args.max_entries;
    config.eviction = args.eviction.unwrap_or_default();
    config.max_key_bytes = args
        .max_key_bytes
        .map_or(KEY_BYTES_DEFAULT, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    config.max_value_bytes = args.max_value_bytes;
    config.max_connections = args.max_connections.unwrap_or(CONNECTIONS_MAX_DEFAULT);
    config.drain = args.drain.unwrap_or(DRAIN_DEFAULT);
    config.warm_max = args.warm_max.unwrap_or(WARM_MAX_DEFAULT);
    config.snapshot = args.snapshot;
    config.disk = DiskFlags {
        path: args.disk,
        bytes_max: args.disk_bytes,
        value_bytes_min: args.disk_min_value,
        admission: args.disk_admit,
    }
    .resolve()?;
    config.compat = args.compat;
    config.compat_listen = args.compat_listen;
    config.admin_listen = args.admin_listen;
    config.insecure = args.insecure;
    config.secret = secret;
    config.tls_files = TlsFiles { cert: args.tls_cert, key: args.tls_key, ca: args.tls_ca };
    config.tls = args.tls;
    config.tls_names = args.tls_name;
    config.tls_server_name = args.tls_server_name;
    config.access = args.access;
    config.allowed_hosts = args.allowed_host;
    config.hot_keys = args.hot_keys.unwrap_or_default();
    config.page = args.page.unwrap_or_default() == PageMode::On;
    config.connections = args.connections.unwrap_or_default();
    config.validate()?;
    let log = LogConfig {
        format: args.log_format.unwrap_or_default(),
        filter: args.log.unwrap_or_default(),
    };
    Ok((config, log))
}

fn discovery(args: &Args) -> Result<DiscoverySet, ConfigError> {
    if args.discovery.is_empty() {
        return Ok(DiscoverySet::ALL);
    }
    let error = |reason: String| ConfigError::new("discovery", reason);
    let methods = DiscoverySet::from_names(&args.discovery).map_err(error)?;
    if methods.seeds && args.seed.is_empty() {
        return Err(error("seeds needs at least one --seed HOST:PORT".to_owned()));
    }
    if methods.dns && args.dns.is_empty() {
        return Err(error("dns needs at least one --dns NAME:PORT".to_owned()));
    }
    Ok(methods)
}

#[cfg(test)]
mod tests;
