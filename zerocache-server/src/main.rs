//! The binary `zerocache-server`: one node.

use std::process::ExitCode;

fn main() -> ExitCode {
    zerocache_server::program::main(std::env::args_os().collect())
}
