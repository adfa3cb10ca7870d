//! Failures of the tool: one line, and an exit code.

use std::{io::Write, process::ExitCode};

use clap::error::{ContextKind, ContextValue, ErrorKind};

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    /// Something failed.
    pub(crate) const fn new(line: String) -> Self {
        Self { line, code: EXIT_FAILURE }
    }

    /// The command line, or a variable that it stands for, is wrong.
    pub(crate) const fn usage(line: String) -> Self {
        Self { line, code: EXIT_USAGE }
    }

    /// Prints the line to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // A wrong value may contain line breaks.
        let line = self.line.replace(char::is_control, " ");
        // Errors of a closed pipe cannot be reported.
        let _ = writeln!(std::io::stderr(), "error: {line}");
        ExitCode::from(self.code)
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
