//! Packet filter rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::PORT;

/// The addresses of nodes; the caller's lie beside them.
const NODE_RANGES: &str = "10.0.0.0-10.0.0.255, 10.1.0.0-10.1.0.255, 10.2.0.0-10.2.0.255, \
                     10.3.0.0-10.3.0.255";

/// Faults around one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Packets of these do not arrive.
    pub(super) dropped_sources: BTreeSet<Ipv4Addr>,
    /// Datagrams of these do not arrive.
    pub(super) unheard: BTreeSet<Ipv4Addr>,
    /// Nothing arrives on connections that these have opened.
    pub(super) uncalled: BTreeSet<Ipv4Addr>,
    /// No packets to or from other nodes.
    pub(super) isolated: bool,
    /// No packets at all.
    pub(super) black_hole: bool,
    /// The share of packets from other nodes that is lost, chosen at random.
    pub(super) lost_percent: u8,
    /// No datagrams to or from other nodes.
    pub(super) tcp_only: bool,
}

impl Rules {
    /// Puts these rules in place of all earlier ones, at once.
    pub(super) fn apply(&self, namespace: &Path) {
        let (mut input, mut output) = (String::new(), String::new());
        for from in &self.dropped_sources {
            let _infallible = writeln!(input, "ip saddr {from} drop");
        }
        for from in &self.unheard {
            let _infallible = writeln!(input, "ip saddr {from} meta l4proto udp drop");
        }
        for from in &self.uncalled {
            let _infallible = writeln!(input, "ip saddr {from} tcp dport {PORT} drop");
        }
        if self.black_hole {
            input += "drop\n";
            output += "drop\n";
        }
        if self.isolated {
            let _infallible = writeln!(input, "ip saddr {{ {NODE_RANGES} }} drop");
            let _infallible = writeln!(output, "ip daddr {{ {NODE_RANGES} }} drop");
        }
        if self.tcp_only {
            let _infallible = writeln!(input, "ip saddr {{ {NODE_RANGES} }} meta l4proto udp drop");
        }
        if self.lost_percent > 0 {
            let chosen = format!("numgen random mod 100 < {}", self.lost_percent);
            let _infallible = writeln!(input, "ip saddr {{ {NODE_RANGES} }} {chosen} drop");
        }
        let table = format!(
            "add table ip faults\n\
             delete table ip faults\n\
             table ip faults {{\n\
             chain input {{\ntype filter hook input priority 0;\niifname lo accept\n{input}}}\n\
             chain output {{\ntype filter hook output priority 0;\noifname lo accept\n{output}}}\n\
             }}\n"
        );
        let file = format!("--net={}", namespace.display());
        feed(Command::new("nsenter").args([&file, "nft", "-f", "-"]), &table);
    }
}

/// Has the router drop what these regions send to others or others to them, and nothing else.
pub(super) fn apply_to_router(cut_off: &[usize]) {
    let mut rules = String::new();
    for region in cut_off {
        let bridge = format!("br{region}");
        // Some kernels also show the router packets that stay on a bridge: these pass.
        let _infallible = writeln!(rules, "iifname {bridge} oifname != {bridge} drop");
        let _infallible = writeln!(rules, "oifname {bridge} iifname != {bridge} drop");
    }
    let table = format!(
        "add table ip faults\n\
         delete table ip faults\n\
         table ip faults {{\n\
         chain forward {{\ntype filter hook forward priority 0;\n{rules}}}\n\
         }}\n"
    );
    feed(Command::new("nft").args(["-f", "-"]), &table);
}

/// Runs the lines of a script; the first that fails ends it.
///
/// # Panics
///
/// If one fails.
pub(crate) fn run_script(script: &str) {
    feed(Command::new("sh").args(["-e", "-s"]), script);
}

/// Runs a command with this as its input.
fn feed(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut pipe = child.stdin.take().expect("piped");
    pipe.write_all(input.as_bytes()).expect("the command reads");
    drop(pipe);
    let status = child.wait().expect("the command ends");
    assert!(status.success(), "{command:?}: {status} on\n{input}");
}
