//! The tool `zerocache`: makes the secrets, tokens and certificates of a cluster. It works offline.
//!
//! What is asked for goes to standard output, what is said about it to standard error. Exit codes: 0, 1 for a
//! failure, 2 for a wrong command line. An error is one line. Secrets come from files and variables, never from
//! the command line, which every user of the machine can read.

mod args;
mod cert;
mod failure;
mod instant;
mod lifetime;
mod secrets;
mod token;

use std::{io::Write, process::ExitCode};

use clap::Parser;
use zerocache_core::access::{SECRET_BYTES, Secret};

use self::{
    args::{Args, CertCommand, Command, TokenCommand},
    failure::Failure,
};

fn main() -> ExitCode {
    let result = args::refuse_secrets(std::env::args_os()).and_then(|()| match Args::try_parse() {
        Ok(args) => run(args.command),
        Err(error) => failure::of_parser(&error),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Secret => print_line(&Secret::from_random(random::<SECRET_BYTES>()?).to_text()),
        Command::Token(TokenCommand::Create(args)) => token::create(&args),
        Command::Token(TokenCommand::Show(args)) => token::show(&args),
        Command::Cert(CertCommand::Ca(args)) => cert::ca(&args),
        Command::Cert(CertCommand::CreateCa(args)) => cert::create_ca(&args),
        Command::Cert(CertCommand::Node(args)) => cert::node(&args),
        Command::Cert(CertCommand::Client(args)) => cert::client(&args),
    }
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let failed = |error| Failure::new(format!("the system gives no random bytes: {error}"));
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Prints a line to standard output. That it got there matters: a secret that is lost cannot be printed again.
fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

/// Prints text to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new(format!("standard output: {error}")))
}

/// Says something about what was printed, to whoever looks at standard error.
fn say(line: &str) {
    // Nobody may listen.
    let _ = writeln!(std::io::stderr(), "{line}");
}
