//! The settings of a process: flags, each with a variable `IMAGES_…`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, ValueEnum};
use zerocache_server::config::HostPort;

use crate::addresses::Network;
use crate::bounded;
use crate::source::{HostPattern, Ports};
use crate::steps::Steps;

/// The prefix of the variables.
const PREFIX: &str = "IMAGES_";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers requests, and asks workers.
    Gateway,
    /// Fetches and converts, for gateways.
    Worker,
    /// Both.
    Both,
}

/// The format of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object on each line.
    Json,
}

/// The settings of `images serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// What this process does.
    #[arg(long, value_enum, default_value = "both", help_heading = "Service")]
    pub role: Role,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080", help_heading = "Service")]
    pub listen: SocketAddr,
    /// The region of this process; ZEROCACHE_REGION goes before the default.
    #[arg(long, help_heading = "Service")]
    pub region: Option<String>,
    /// Runs a node of the cache in this process, which takes its settings from the variables ZEROCACHE_….
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Service")]
    pub embedded_node: bool,
    /// Requests at once, until their answers are sent; more get 503.
    #[arg(long, default_value = "1024", value_parser = bounded::some, help_heading = "Service")]
    pub requests: usize,
    /// The time for a request until its answer begins, over all workers that are asked.
    #[arg(long, default_value = "30s", value_parser = bounded::some_time, help_heading = "Service")]
    pub request_time: Duration,
    /// Connections at once; more wait.
    #[arg(long, default_value = "4096", value_parser = bounded::some, help_heading = "Service")]
    pub connections: usize,
    /// The memory for images kept in this process; an image takes at most 1/128 of it.
    #[arg(long, default_value = "256MiB", value_parser = bounded::size, help_heading = "Service")]
    pub near_bytes: u64,
    /// The format of logs.
    #[arg(long, value_enum, default_value = "text", help_heading = "Service")]
    pub log_format: LogFormat,
    /// Serves a page with a gallery at /, which shows images, times and where they came from.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Service")]
    pub gallery: bool,

    /// The name of this worker; its host and process if not given.
    #[arg(long, help_heading = "Workers")]
    pub name: Option<String>,
    /// The name of the service in the directory of workers; services of one cluster have different ones.
    #[arg(long, default_value = "images", help_heading = "Workers")]
    pub service: String,
    /// HOST:PORT at which gateways reach this worker; the listen address if not given, and for a wildcard the
    /// address from which this host reaches the cache.
    #[arg(long, help_heading = "Workers")]
    pub advertise: Option<HostPort>,
    /// Workers, HOST:PORT each, with commas. Without it and worker-dns they are found through the cache.
    #[arg(long, value_delimiter = ',', help_heading = "Workers")]
    pub workers: Vec<HostPort>,
    /// NAME:PORT of which each address is a worker.
    #[arg(long, help_heading = "Workers")]
    pub worker_dns: Option<HostPort>,
    /// A file with the key that gateways and workers share; or the variable IMAGES_WORKER_KEY. Workers refuse
    /// everyone without it.
    #[arg(long, help_heading = "Workers")]
    pub worker_key_file: Option<PathBuf>,
    /// Conversions at once; 0 for the number of processors.
    #[arg(long, default_value = "0", value_parser = bounded::count, help_heading = "Workers")]
    pub conversions: usize,
    /// Conversions that wait; 0 for four times those at once. More get 503, or an old image.
    #[arg(long, default_value = "0", value_parser = bounded::count, help_heading = "Workers")]
    pub queue: usize,
    /// Fetches of originals at once, and a quarter of it from each host; four times as many wait.
    #[arg(long, default_value = "16", value_parser = bounded::some, help_heading = "Workers")]
    pub fetches: usize,

    /// Hosts that are fetched from, with commas: example.org, *.example.org. All if not given.
    #[arg(long, value_delimiter = ',', help_heading = "Sources")]
    pub allow_hosts: Vec<HostPattern>,
    /// Networks that are fetched from although they are not public: 10.1.0.0/16.
    #[arg(long, value_delimiter = ',', help_heading = "Sources")]
    pub allow_networks: Vec<Network>,
    /// Ports that are fetched from: 443, 8000-8999.
    #[arg(long, value_delimiter = ',', default_value = "80,443", help_heading = "Sources")]
    pub allow_ports: Vec<Ports>,
    /// A file with further certificate authorities of origins, in PEM.
    #[arg(long, help_heading = "Sources")]
    pub origin_ca: Option<PathBuf>,
    /// The most bytes of an original. Gateways need the setting, too: they accept no more from workers, or 64 MiB.
    #[arg(long, default_value = "25MiB", value_parser = bounded::size, help_heading = "Sources")]
    pub source_bytes: u64,
    /// The longest side of an original.
    #[arg(long, default_value = "12000", help_heading = "Sources")]
    pub source_side: u32,
    /// The most pixels of an original, in millions.
    #[arg(long, default_value = "50", value_parser = bounded::some, help_heading = "Sources")]
    pub source_megapixels: usize,
    /// The most memory of a decoded original, and of its decoder; a JPEG takes up to 9 bytes for each pixel.
    #[arg(long, default_value = "256MiB", value_parser = bounded::size, help_heading = "Sources")]
    pub decode_bytes: u64,
    /// The time to connect to an origin.
    #[arg(long, default_value = "2s", value_parser = bounded::some_time, help_heading = "Sources")]
    pub fetch_connect: Duration,
    /// The time until an origin answers.
    #[arg(long, default_value = "5s", value_parser = bounded::some_time, help_heading = "Sources")]
    pub fetch_first_byte: Duration,
    /// The time of a fetch, redirects included.
    #[arg(long, default_value = "15s", value_parser = bounded::some_time, help_heading = "Sources")]
    pub fetch_total: Duration,
    /// The least bytes per second of an origin.
    #[arg(long, default_value = "16KiB", value_parser = bounded::size, help_heading = "Sources")]
    pub fetch_rate: u64,

    /// The sides that are made, rising, with commas; or exact, which needs signed URLs.
    #[arg(
        long,
        default_value = "20,40,60,120,250,330,500,960,1280,1920,3840",
        help_heading = "Images"
    )]
    pub steps: Steps,
    /// Names for parameters, with semicolons: card:w=500&h=250&fit=cover;face:w=60&h=60&fit=cover.
    #[arg(long, value_delimiter = ';', help_heading = "Images")]
    pub presets: Vec<String>,
    /// Refuses every parameter but url, preset and dpr.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Images")]
    pub only_presets: bool,
    /// A file with secrets of signed URLs, one per line, the first for signing; or IMAGES_SIGNING_KEYS. URLs
    /// need no signature if there is none.
    #[arg(long, help_heading = "Images")]
    pub signing_keys_file: Option<PathBuf>,
    /// A file with the key for purges; or IMAGES_PURGE_KEY. Nobody may purge if there is none.
    #[arg(long, help_heading = "Images")]
    pub purge_key_file: Option<PathBuf>,
    /// An image that is sent, with the status of the error, when an original cannot be had.
    #[arg(long, help_heading = "Images")]
    pub fallback_image: Option<PathBuf>,

    /// The time for which images are fresh in the cache.
    #[arg(long, default_value = "1h", value_parser = bounded::some_time, help_heading = "Lifetimes")]
    pub ttl: Duration,
    /// The time after that in which an old variant is served while a new one is made.
    #[arg(long, default_value = "1h", value_parser = bounded::time, help_heading = "Lifetimes")]
    pub stale_while: Duration,
    /// The time after that in which an old image is served if no new one can be made.
    #[arg(long, default_value = "24h", value_parser = bounded::time, help_heading = "Lifetimes")]
    pub stale_if_error: Duration,
    /// The time for which failures that last are stored; 0 for not at all.
    #[arg(long, default_value = "10s", value_parser = bounded::time, help_heading = "Lifetimes")]
    pub failure_ttl: Duration,
    /// The time for which browsers and CDNs keep images without asking. They ask each time if it is not given, and
    /// see purges at once.
    #[arg(long, value_parser = bounded::time, help_heading = "Lifetimes")]
    pub max_age: Option<Duration>,
    /// Names the worker of each image in the header x-images-worker.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Service")]
    pub name_worker: bool,

    /// Makes every image for each request, without the cache and its leases: for comparison.
    #[arg(long, hide = true)]
    pub naive: bool,
    /// Ends with standard input.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}

/// Returns the variable of a flag.
fn variable_name(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Adds the variable of each flag to the help of a command.
#[must_use]
pub fn with_variables_in_help(command: Command) -> Command {
    command.mut_args(|arg| {
        let Some(flag) = arg.get_long().filter(|flag| !is_without_variable(flag)) else {
            return arg;
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [{}]", variable_name(flag));
        arg.help(help)
    })
}

fn is_without_variable(flag: &str) -> bool {
    matches!(flag, "help" | "version" | "naive" | "end-with-parent")
}

/// Adds to a command line what variables say, for flags that are not on it. `argv` begins with the program's name;
/// flags are added at its end.
pub fn add_variables(
    argv: &mut Vec<OsString>,
    command: &Command,
    variable: impl Fn(&str) -> Option<OsString>,
) {
    for flag in command.get_arguments().filter_map(|arg| arg.get_long()) {
        let long = format!("--{flag}");
        let given = argv.iter().filter_map(|arg| arg.to_str());
        let is_given = given
            .filter_map(|arg| arg.strip_prefix(&long))
            .any(|rest| rest.is_empty() || rest.starts_with('='));
        if is_given || is_without_variable(flag) {
            continue;
        }
        if let Some(value) = variable(&variable_name(flag)).filter(|value| !value.is_empty()) {
            let mut arg = OsString::from(format!("{long}="));
            arg.push(value);
            argv.push(arg);
        }
    }
}

/// The secrets of a process: each from a file, or from a variable.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Of gateways and workers.
    pub worker_key: Option<String>,
    /// Of signed URLs, one per line.
    pub signing_keys: Option<String>,
    /// Of purges.
    pub purge_key: Option<String>,
}

impl Secrets {
    /// Reads the secrets.
    ///
    /// # Errors
    /// If a file cannot be read, or a secret is in a file and in a variable.
    pub fn read(
        args: &ServeArgs,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let secret = |file: &Option<PathBuf>, name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            match (file, value) {
                (Some(_), Some(_)) => {
                    anyhow::bail!("{name} and a file with it are both given; use one of them")
                }
                (Some(file), None) => match std::fs::read_to_string(file) {
                    Ok(text) => Ok(Some(text)),
                    Err(error) => anyhow::bail!("{}: {error}", file.display()),
                },
                (None, value) => Ok(value),
            }
        };
        Ok(Self {
            worker_key: secret(&args.worker_key_file, "IMAGES_WORKER_KEY")?,
            signing_keys: secret(&args.signing_keys_file, "IMAGES_SIGNING_KEYS")?,
            purge_key: secret(&args.purge_key_file, "IMAGES_PURGE_KEY")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(args: &[&str], variables: &[(&str, &str)]) -> Result<ServeArgs, clap::Error> {
        let mut argv: Vec<OsString> =
            std::iter::once("images").chain(args.iter().copied()).map(Into::into).collect();
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        add_variables(&mut argv, &Cli::command(), value);
        Cli::try_parse_from(argv).map(|cli| cli.serve)
    }

    #[test]
    fn every_flag_has_a_variable_and_the_command_line_goes_first() {
        let variables = [
            ("IMAGES_ROLE", "worker"),
            ("IMAGES_LISTEN", "127.0.0.1:1"),
            ("IMAGES_EMBEDDED_NODE", "true"),
            ("IMAGES_ALLOW_HOSTS", "example.org,*.example.net"),
            ("IMAGES_PRESETS", "a:w=20;b:w=40"),
            ("IMAGES_TTL", ""),
            ("IMAGES_NAIVE", "true"),
        ];
        let args = parse(&["--listen", "127.0.0.1:2", "--allow-ports=8080"], &variables)
            .expect("settings");
        assert_eq!((args.role, args.listen.port(), args.embedded_node), (Role::Worker, 2, true));
        assert_eq!((args.allow_hosts.len(), args.presets.len(), args.ttl.as_secs()), (2, 2, 3_600));
        assert_eq!(args.allow_ports, ["8080".parse().expect("ports")]);
        assert!(!args.naive);
        assert!(parse(&[], &[("IMAGES_ROLE", "none")]).is_err());
        for wrong in [
            "--requests=0",
            "--connections=99999999999",
            "--near-bytes=99999999TiB",
            "--ttl=99999999999999999",
            "--workers=worker",
            "--advertise=:80",
            "--request-time=0",
        ] {
            assert!(parse(&[wrong], &[]).is_err(), "{wrong}");
        }
        assert!(
            !parse(&["--gallery=false"], &[("IMAGES_GALLERY", "true")]).expect("settings").gallery
        );
    }

    #[test]
    fn help_names_the_variables() {
        let help = with_variables_in_help(Cli::command()).render_long_help().to_string();
        for name in
            ["IMAGES_ROLE", "IMAGES_FETCH_TOTAL", "IMAGES_WORKER_KEY_FILE", "IMAGES_MAX_AGE"]
        {
            assert!(help.contains(name), "{name} is not in {help}");
        }
        assert!(!help.contains("IMAGES_NAIVE"));
    }

    #[test]
    fn secret_comes_from_a_file_or_a_variable() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("key");
        std::fs::write(&file, "a secret of some length\n").expect("written");
        let flag = format!("--purge-key-file={}", file.display());
        let args = parse(&[&flag], &[]).expect("settings");
        let secrets = Secrets::read(&args, |_| None).expect("secrets");
        assert_eq!(secrets.purge_key.as_deref(), Some("a secret of some length\n"));
        assert!(
            Secrets::read(&args, |name| (name == "IMAGES_PURGE_KEY").then(|| "other".to_owned()))
                .is_err()
        );
        let secrets =
            Secrets::read(&args, |name| (name == "IMAGES_WORKER_KEY").then(|| "other".to_owned()));
        assert_eq!(secrets.expect("secrets").worker_key.as_deref(), Some("other"));
    }
}
