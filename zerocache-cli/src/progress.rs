//! Progress of long work, on a terminal only.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::Context;

/// The progress of a command, on standard error. Shows nothing in a pipe, with `--quiet` and with `--json`.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Work of `total` pieces.
    pub(crate) fn new(context: &Context, what: &'static str, total: u64) -> Self {
        let style = "{msg} [{bar:30}] {percent}% {eta}";
        Self::styled(context, what, style, Some(total))
    }

    /// Work whose end is not known.
    pub(crate) fn endless(context: &Context, what: &'static str) -> Self {
        let progress = Self::styled(context, what, "{spinner} {msg} {elapsed}", None);
        progress.0.enable_steady_tick(std::time::Duration::from_millis(100));
        progress
    }

    fn styled(context: &Context, what: &'static str, style: &str, total: Option<u64>) -> Self {
        let is_shown =
            !context.global.quiet && !context.global.json && std::io::stderr().is_terminal();
        let target = match is_shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(total, target).with_message(what);
        // The templates are constants.
        Self(match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// Notes that so many more pieces are done.
    pub(crate) fn advance(&self, pieces: u64) {
        self.0.inc(pieces);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
