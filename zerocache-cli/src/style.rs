//! Colours where they help, on a terminal that wants them: none in a pipe, and with `NO_COLOR`.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use crate::failure::Failure;

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Somebody should look at it.
pub(crate) const ODD: Style = AnsiColor::Yellow.on_default();
/// Something is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Returns `text` with the codes of a style, which [`print()`] removes where they are not wanted.
pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints text to standard output that may have codes of styles in it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new(format!("standard output: {error}")))
}
