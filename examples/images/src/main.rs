//! `images`: an image proxy and thumbnailer whose results are shared through zerocache.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use images::demo::{self, DemoArgs, NodeArgs, end_with_parent};
use images::run::{self, ServeError};
use images::settings::{LogFormat, ServeArgs, add_variables, with_variables_in_help};
use images::signature::Keys;
use images::try_files;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs a gateway, a worker, or both.
    Serve(Box<ServeArgs>),
    /// Runs a demonstration, and prints a table of what is expected and what was seen.
    Demo(DemoArgs),
    /// Converts files as the service would, and says what became of each.
    Convert {
        /// The parameters of a variant.
        #[arg(long, default_value = "w=250")]
        params: String,
        /// The directory for the images; none are written without it.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Measures what conversions cost on this machine.
    Costs,
    /// Runs a node of a demonstration.
    #[command(hide = true)]
    Node(NodeArgs),
    /// Signs the path and query of an image: /image?url=…&w=250.
    Sign {
        /// The file with the secrets; the first one signs.
        #[arg(long)]
        signing_keys_file: PathBuf,
        /// The path and query.
        target: String,
    },
}

/// The exit code of a wrong configuration, as for a wrong flag.
const EXIT_USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let cli = parse();
    let result = match cli.command {
        Action::Serve(args) => match serve(*args) {
            Err(ServeError::Config(error)) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(EXIT_USAGE_ERROR);
            }
            Err(ServeError::Failed(error)) => Err(error),
            Ok(()) => Ok(true),
        },
        Action::Demo(args) => demo(&args),
        Action::Convert { params, out, files } => {
            try_files::convert_all(&params, out.as_deref(), &files)
        }
        Action::Costs => demo::costs().map(|table| println!("{table}")).map(|()| true),
        Action::Node(args) => node(args).map(|()| true),
        Action::Sign { signing_keys_file, target } => {
            sign(&signing_keys_file, &target).map(|()| true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line, and for `serve` the variables.
fn parse() -> Cli {
    let command = Cli::command().mut_subcommand("serve", with_variables_in_help);
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    if argv.get(1).is_some_and(|name| name == "serve")
        && let Some(serve) = command.find_subcommand("serve")
    {
        add_variables(&mut argv, serve, |name| std::env::var_os(name));
    }
    Cli::from_arg_matches(&command.get_matches_from(argv)).unwrap_or_else(|error| error.exit())
}

fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,images=info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    if args.end_with_parent {
        end_with_parent()?;
    }
    runtime()?.block_on(run::serve(args))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn node(args: NodeArgs) -> Result<()> {
    end_with_parent()?;
    runtime()?.block_on(demo::node(args))
}

/// Runs a demonstration. Returns whether every claim holds.
fn demo(args: &DemoArgs) -> Result<bool> {
    let program = std::env::current_exe()?;
    let report = runtime()?.block_on(demo::run(program, args))?;
    println!("\n{report}");
    Ok(report.holds())
}

fn sign(file: &PathBuf, target: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let keys = Keys::parse(&text).map_err(|error| anyhow::anyhow!(error))?;
    println!("{}", keys.sign(target).context("there is no key")?);
    Ok(())
}
