//! Two releases of a program, whose values have two shapes, in use side by side: real processes, on
//! two nodes of their region and one of another.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use zerocache_tests::cluster::Cluster;

/// Processes of each release.
const PROCESSES: usize = 4;

/// Keys that all of them use.
const KEYS: usize = 5;

/// The number of calls of each process for each key.
const ROUNDS: usize = 60;

/// A process of one release; killed when dropped.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(cluster: &Cluster, n: usize, release: &str) -> Self {
        // Each has another node as its first seed.
        let seed = cluster.nodes[n % 2].address().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rolling_deploy"))
            .args([&seed, &cluster.nodes.len().to_string(), release])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("was asked for");
        let output = BufReader::new(child.stdout.take().expect("was asked for")).lines();
        let mut process = Self { child, input, output };
        assert_eq!(process.answer(), "ready");
        process
    }

    fn answer(&mut self) -> String {
        self.output.next().expect("it answers").expect("in text")
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).expect("it listens");
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    fn computed(&mut self) -> usize {
        self.ask("computed").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes that have called the function for a key, in order; they determine the origin of
/// each release's value.
fn called(olds: &mut [Process], news: &mut [Process], key: usize) -> [String; 2] {
    let mut values = [olds, news].map(|processes| {
        let asked = processes.iter_mut().map(|process| process.ask(&format!("call {key}")));
        asked.collect::<Vec<_>>()
    });
    values.each_mut().map(|values| {
        let first = values.remove(0);
        let value = first.strip_prefix("computed ").expect("the first one of a shape computes");
        assert_eq!(*values, vec![format!("found {value}"); PROCESSES - 1]);
        value.to_owned()
    })
}

#[test]
fn two_releases_keep_separate_values_and_invalidate_both() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let start =
        |release| (0..PROCESSES).map(|n| Process::start(&cluster, n, release)).collect::<Vec<_>>();
    let (mut olds, mut news) = (start("old"), start("new"));
    let values: Vec<_> = (0..KEYS).map(|key| called(&mut olds, &mut news, key)).collect();
    for _ in 1..ROUNDS {
        for (key, [old, new]) in values.iter().enumerate() {
            // All at once: each has the value of its release.
            for process in olds.iter_mut().chain(&mut news) {
                process.tell(&format!("call {key}"));
            }
            for process in &mut olds {
                assert_eq!(process.answer(), format!("found {old}"));
            }
            for process in &mut news {
                assert_eq!(process.answer(), format!("found {new}"));
            }
        }
    }
    let computed: usize = olds.iter_mut().chain(&mut news).map(Process::computed).sum();
    assert_eq!(computed, 2 * KEYS, "of {} calls", 2 * PROCESSES * ROUNDS * KEYS);
    // One process of either release, on any node, invalidates the values of both.
    assert_eq!(news[1].ask("invalidate 0"), "deleted");
    assert_ne!(called(&mut olds, &mut news, 0), values[0]);
    assert_eq!(olds[2].ask("invalidate 1"), "deleted");
    assert_ne!(called(&mut olds, &mut news, 1), values[1]);
}
