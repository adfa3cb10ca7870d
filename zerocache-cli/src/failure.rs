//! Failures of the tool: one line, and an exit code.

use std::{io::Write, process::ExitCode};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;
use zerocache_client::Error;
use zerocache_core::call::CallFailure;

use crate::exit::{Exit, print_document};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    exit: Exit,
}

impl Failure {
    /// Something failed.
    pub(crate) const fn new(line: String) -> Self {
        Self { line, exit: Exit::NOTHING }
    }

    /// The command line, or a variable that it stands for, is wrong.
    pub(crate) const fn usage(line: String) -> Self {
        Self { line, exit: Exit::USAGE }
    }

    /// A command ended otherwise than it should.
    pub(crate) const fn with(exit: Exit, line: String) -> Self {
        Self { line, exit }
    }

    /// No node of the cluster answers.
    pub(crate) const fn unreachable(line: String) -> Self {
        Self { line, exit: Exit::UNREACHABLE }
    }

    /// Returns the line.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Returns the exit code.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the line to standard error, with `is_json` also a document to standard output, and returns the
    /// exit code.
    pub(crate) fn report(&self, is_json: bool) -> ExitCode {
        if is_json {
            // Standard output may be closed; the line on standard error says the same.
            let _ = print_document(json!({ "error": self.line }), self.exit);
        }
        // A wrong value may contain line breaks.
        let line = self.line.replace(char::is_control, " ");
        // Errors of a closed pipe cannot be reported.
        let _ = writeln!(std::io::stderr(), "error: {line}");
        ExitCode::from(self.exit.0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::Unreachable { .. } | Error::Unverified { .. } => Exit::UNREACHABLE,
            Error::Denied { .. } => Exit::DENIED,
            Error::InvalidKey(_)
            | Error::InvalidTtl(_)
            | Error::InvalidTag(_)
            | Error::InvalidDescription(_) => Exit::USAGE,
            Error::Config(text) => return Self::usage(text),
            _ => Exit::NOTHING,
        };
        Self { line: error.to_string(), exit }
    }
}

/// Why a node did not answer, in words.
pub(crate) const fn call_failure(failure: CallFailure) -> &'static str {
    match failure {
        CallFailure::Refused => "nobody listens there",
        CallFailure::OtherHost => {
            "it is on another host, and without a token or a secret only this host is used"
        }
        CallFailure::Unverified => {
            "it cannot be verified: it is of another cluster or has other secrets, does not accept this \
             certificate, or speaks no TLS"
        }
        CallFailure::NotSent => "no connection",
        CallFailure::NoAnswer => "no answer in time",
    }
}

/// Prints help and version, and reduces an error of the parser, which has several lines, to one.
pub(crate) fn of_parser(error: &clap::Error) -> Result<(), Failure> {
    use std::error::Error as _;
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return crate::print_line(text.trim_end());
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return Err(Failure::usage("a command is missing; see --help".to_owned()));
        }
        ErrorKind::ValueValidation => {
            if let (Some(ContextValue::String(argument)), Some(reason)) =
                (error.get(ContextKind::InvalidArg), error.source())
            {
                let name = argument.split_whitespace().next().unwrap_or_default();
                return Err(Failure::usage(format!("{name}: {reason}")));
            }
        }
        _ => {}
    }
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let hint = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(near)) => format!("; did you mean {near}?"),
        _ => "; see --help".to_owned(),
    };
    Err(Failure::usage(format!("{line}{hint}")))
}
