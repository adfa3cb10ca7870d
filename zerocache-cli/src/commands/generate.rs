//! `completions` and `man`: from the command line itself.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;
use zerocache_server::config;

use crate::{args::Args, failure::Failure, print, say};

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "zerocache", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Writes the manual pages into a folder.
pub(crate) fn man(folder: &Path, is_quiet: bool) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
    // In place of the page of `zerocache server`, which knows no flags of a node.
    Man::new(config::command()).generate_to(folder).map_err(failed)?;
    if !is_quiet {
        say(&format!("manual pages are in {}", folder.display()));
    }
    Ok(())
}
