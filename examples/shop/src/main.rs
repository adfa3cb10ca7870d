//! `cargo run --release --bin shop`: the shop in two regions, and customers.
//!
//! The other commands are the processes that this one starts: `node` and `service`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use shop::node::{self, NodeArgs};
use shop::processes::end_with_parent;
use shop::report::say;
use shop::scenario::{self, Plan};
use shop::service::{self, ServiceArgs};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Subcommand)]
enum Role {
    /// Runs one cache node; ends with its standard input.
    Node(NodeArgs),
    /// Runs one process of the service; ends with its standard input.
    Service(ServiceArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // The report is what counts; RUST_LOG=warn shows what clients say when nodes die.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match cli.role {
        None => run(cli.plan).await,
        Some(Role::Node(args)) => child(node::run(args)).await,
        Some(Role::Service(args)) => child(service::run(args)).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn child(role: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    end_with_parent()?;
    role.await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs all phases. A signal ends that early: what was started ends when its owner is dropped.
async fn run(plan: Plan) -> Result<ExitCode> {
    let program = std::env::current_exe()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let report = tokio::select! {
        report = scenario::run(&program, plan, |report| say(&report.head())) => report?,
        _ = interrupt.recv() => return Ok(ExitCode::from(130)),
        _ = terminate.recv() => return Ok(ExitCode::from(143)),
        _ = hangup.recv() => return Ok(ExitCode::from(129)),
    };
    say(&report.to_string());
    let problems = report.problems();
    for problem in &problems {
        say(&format!("WRONG: {problem}"));
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
