//! The tool `zerocache`: looks into a cluster, operates it, and makes its secrets, tokens and certificates; the
//! latter offline. `zerocache server` is a node.
//!
//! What is asked for goes to standard output, what is said about it to standard error. The exit codes are in
//! [`exit`]. An error is one line. Secrets come from files and variables, never from
//! the command line, which every user of the machine can read.

mod args;
mod cert;
mod commands;
mod context;
mod exit;
mod failure;
mod histogram;
mod instant;
mod lifetime;
mod progress;
mod secrets;
mod style;
mod survey;
mod table;
mod token;

use std::{env, ffi::OsString, io::Write, iter, process::ExitCode};

use clap::Parser;
use zerocache_core::access::{SECRET_BYTES, Secret};

use self::{
    args::{Args, CertCommand, Command, Global, TokenCommand},
    context::Context,
    exit::Exit,
    failure::Failure,
};

fn main() -> ExitCode {
    let is_server = |argument: OsString| argument == "server";
    if env::args_os().nth(1).is_some_and(is_server) {
        let flags = env::args_os().skip(2);
        return zerocache_server::program::main(
            iter::once("zerocache server".into()).chain(flags).collect(),
        );
    }
    let is_json = env::args_os().any(|argument| argument == "--json");
    let result = args::refuse_secrets(env::args_os()).and_then(|()| match Args::try_parse() {
        Ok(args) => run(args.command, args.global),
        Err(error) => failure::of_parser(&error).map(|()| Exit::DONE),
    });
    match result {
        Ok(exit) => ExitCode::from(exit.0),
        Err(failure) => failure.report(is_json),
    }
}

fn run(command: Command, global: Global) -> Result<Exit, Failure> {
    match command {
        Command::Get(args) => commands::entries::get(&Context::new(global)?, &args),
        Command::Put(args) => commands::entries::put(&Context::new(global)?, &args),
        Command::Delete(args) => commands::entries::delete(&Context::new(global)?, &args),
        Command::Purge(args) => commands::purge::purge(&Context::new(global)?, &args),
        Command::Where(args) => commands::copies::locate(&Context::new(global)?, &args),
        Command::Verify(args) => commands::copies::verify(&Context::new(global)?, &args),
        Command::Repair(args) => commands::copies::repair(&Context::new(global)?, &args),
        Command::Check(args) => commands::check::check(global, &args),
        Command::Doctor(args) => commands::doctor::doctor(&Context::new(global)?, &args),
        Command::Top(args) => commands::top::top(&Context::new(global)?, &args),
        Command::Drain(args) => commands::service::drain(&Context::new(global)?, &args.service),
        Command::Undrain(args) => commands::service::undrain(&Context::new(global)?, &args.service),
        Command::Keys(args) => commands::keys::keys(&Context::new(global)?, &args),
        Command::Watch(args) => commands::watch::watch(&Context::new(global)?, &args),
        Command::Nodes => commands::nodes::nodes(&Context::new(global)?),
        Command::Token(TokenCommand::Show(args)) => token::show(&args, &global),
        offline => run_offline(offline, &global).map(|()| Exit::DONE),
    }
}

/// Runs a command that asks nobody, and ends well or with a failure.
fn run_offline(command: Command, global: &Global) -> Result<(), Failure> {
    match command {
        Command::Secret => print_line(&Secret::from_random(random::<SECRET_BYTES>()?).to_text()),
        Command::Token(TokenCommand::Create(args)) => token::create(&args, global),
        Command::Cert(CertCommand::Ca) => cert::ca(global),
        Command::Cert(CertCommand::CreateCa(args)) => cert::create_ca(&args),
        Command::Cert(CertCommand::Node(args)) => cert::node(&args),
        Command::Cert(CertCommand::Client(args)) => cert::client(&args),
        Command::Completions { shell } => commands::generate::completions(shell),
        Command::Man { folder } => commands::generate::man(&folder, global.quiet),
        Command::Server { .. } => Err(Failure::usage(
            "server: flags of a node follow it, and none go before it".to_owned(),
        )),
        // All others have an exit code to choose.
        _ => Ok(()),
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

/// Lower-case hexadecimal digits.
fn to_hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from_digit(u32::from(digit), 16);
    bytes
        .iter()
        .flat_map(|byte| iter::once(digit(byte >> 4)).chain([digit(byte & 15)]))
        .flatten()
        .collect()
}

/// The bytes of hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())
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
