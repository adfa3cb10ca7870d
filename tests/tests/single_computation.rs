//! One computation across processes: real ones, which all miss one key at once.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::{PATIENCE, time_until, until, until_true};

/// Processes that miss one key at once.
const PROCESSES: usize = 50;

/// A process that calls a memoized function on command; killed when dropped.
struct Process {
    child: Child,
    input: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts one in a region, with a node of a cluster of so many as its seed.
    fn start((region, seed): (&str, SocketAddr), nodes: usize, memoized: &Memoized) -> Self {
        let Memoized { scope, life, ttl_s, key } = *memoized;
        let (seed, nodes) = (seed.to_string(), nodes.to_string());
        let life_ms = life.as_millis().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_memoized"))
            .args([region, &seed, &nodes, scope, &life_ms, key])
            .env("MEMOIZED_TTL_S", ttl_s.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("was asked for");
        let output = BufReader::new(child.stdout.take().expect("was asked for"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        // Ends with the process.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
        Self { child, input, said }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).expect("it listens");
    }

    /// Returns all lines of its output so far that begin with `start`.
    fn said(&self, beginning: &str) -> Vec<String> {
        let said = self.said.lock().expect("no panic");
        said.iter().filter(|line| line.starts_with(beginning)).cloned().collect()
    }

    fn has_said(&self, beginning: &str) -> bool {
        !self.said(beginning).is_empty()
    }

    fn forget(&self) {
        self.said.lock().expect("no panic").clear();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parameters of the processes of a test: scope and duration of the lease, and the argument.
struct Memoized {
    scope: &'static str,
    life: Duration,
    /// The TTL of values in seconds.
    ttl_s: u64,
    key: &'static str,
}

impl Memoized {
    const fn in_region(key: &'static str) -> Self {
        Self { scope: "region", life: PATIENCE, ttl_s: 600, key }
    }
}

/// Starts `count` processes with the nodes as their seeds, in rotation, and waits until each knows
/// all nodes.
fn ready(cluster: &Cluster, count: usize, memoized: &Memoized) -> Vec<Process> {
    let nodes = &cluster.nodes;
    let near = |n: usize| &nodes[n % nodes.len()];
    let start = |n| Process::start((near(n).region(), near(n).address()), nodes.len(), memoized);
    let processes: Vec<_> = (0..count).map(start).collect();
    for process in &processes {
        until_true("a process that is ready", || process.has_said("ready"));
    }
    processes
}

/// Has all of them call the function, and waits until each has found nothing in the cache.
fn all_miss(processes: &mut [Process]) {
    processes.iter_mut().for_each(|process| process.tell("go"));
    for process in processes.iter() {
        until_true("a miss", || process.has_said("missed"));
    }
}

fn computing(processes: &[Process]) -> Vec<usize> {
    let each = processes.iter().enumerate();
    each.flat_map(|(n, process)| process.said("computing").into_iter().map(move |_| n)).collect()
}

/// Waits until so many computations have begun; which processes are at it.
fn wait_for_computations(processes: &[Process], count: usize) -> Vec<usize> {
    until("the computations", || Some(computing(processes)).filter(|at| at.len() >= count))
}

/// Returns the value that each process has at the end.
fn results(processes: &[Process]) -> Vec<String> {
    let result =
        |process: &Process| process.said("value").into_iter().chain(process.said("error")).next();
    let are_done = time_until(PATIENCE, || processes.iter().all(|it| result(it).is_some()));
    if are_done.is_none() {
        let all = processes.iter().map(|process| process.said(""));
        panic!(
            "awaited in vain: a result of each process; they said {:?}",
            all.collect::<Vec<_>>()
        );
    }
    processes.iter().filter_map(result).collect()
}

#[test]
fn fifty_processes_missing_one_key_compute_it_once() {
    let cluster = Cluster::start(&["london", "london", "london"]);
    let mut processes = ready(&cluster, PROCESSES, &Memoized::in_region("fifty"));
    all_miss(&mut processes);
    let leader = wait_for_computations(&processes, 1)[0];
    processes[leader].tell("finish");
    let expected = format!("value of process {}", processes[leader].child.id());
    assert_eq!(results(&processes), vec![expected; PROCESSES]);
    assert_eq!(computing(&processes), [leader], "one computation");
}

#[test]
fn lease_scope_is_global_or_per_region() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let of_all = Memoized { scope: "all", ..Memoized::in_region("of all") };
    let mut processes = ready(&cluster, 6, &of_all);
    all_miss(&mut processes);
    let leader = wait_for_computations(&processes, 1)[0];
    processes[leader].tell("finish");
    assert!(results(&processes).iter().all(|result| result.starts_with("value")));
    assert_eq!(computing(&processes), [leader]);
    drop(processes);

    let mut processes = ready(&cluster, 6, &Memoized::in_region("of one"));
    all_miss(&mut processes);
    let leaders = wait_for_computations(&processes, 2);
    // The processes alternate between the two regions.
    let mut regions: Vec<_> = leaders.iter().map(|leader| leader % 2).collect();
    regions.sort_unstable();
    assert_eq!(regions, [0, 1], "{leaders:?}");
    leaders.iter().for_each(|leader| processes[*leader].tell("finish"));
    assert!(results(&processes).iter().all(|result| result.starts_with("value")));
    assert_eq!(computing(&processes).len(), 2);
}

#[test]
fn token_of_a_dead_leader_is_handed_over() {
    let cluster = Cluster::start(&["london", "london"]);
    let life = Duration::from_secs(5);
    let mut processes =
        ready(&cluster, 5, &Memoized { life, ..Memoized::in_region("dead leader") });
    all_miss(&mut processes);
    let leader = wait_for_computations(&processes, 1)[0];
    drop(processes.remove(leader));
    let next = wait_for_computations(&processes, 1)[0];
    processes[next].tell("finish");
    let expected = format!("value of process {}", processes[next].child.id());
    assert_eq!(results(&processes), vec![expected; 4]);
}

#[test]
fn failed_leader_lets_all_compute_at_once() {
    let cluster = Cluster::start(&["london", "london"]);
    let mut processes = ready(&cluster, 5, &Memoized::in_region("failing"));
    all_miss(&mut processes);
    let leader = wait_for_computations(&processes, 1)[0];
    processes[leader].tell("fail");
    // No process has been told yet how to end its computation: they run concurrently.
    assert_eq!(wait_for_computations(&processes, 5).len(), 5);
    processes.iter_mut().for_each(|process| process.tell("fail"));
    assert!(results(&processes).iter().all(|result| result.starts_with("error")));
    assert_eq!(computing(&processes).len(), 5, "one round");
}

#[test]
fn delete_voids_the_token() {
    let cluster = Cluster::start(&["london", "london"]);
    let mut processes = ready(&cluster, 3, &Memoized::in_region("deleted"));
    all_miss(&mut processes);
    let first = wait_for_computations(&processes, 1)[0];
    processes[first].tell("delete");
    until_true("the delete", || processes[first].has_said("deleted"));
    // The next one may compute at once: what the first one knows is out of date.
    let both = wait_for_computations(&processes, 2);
    let second = both.into_iter().find(|at| *at != first).expect("another one");
    processes[second].tell("finish");
    let newer = format!("value of process {}", processes[second].child.id());
    until_true("the newer value", || processes[second].has_said(&newer));
    processes[first].tell("finish");
    let mut expected = vec![newer.clone(); 3];
    expected[first] = format!("value of process {}", processes[first].child.id());
    assert_eq!(results(&processes), expected);
    // The cache holds the newer value.
    for process in &mut processes {
        process.forget();
        process.tell("go");
    }
    assert_eq!(results(&processes), vec![newer; 3]);
    assert_eq!(computing(&processes), [0_usize; 0]);
}

#[test]
fn one_process_refreshes_while_others_get_the_stale_value() {
    let cluster = Cluster::start(&["london", "london"]);
    let mut processes = ready(&cluster, 4, &Memoized { ttl_s: 1, ..Memoized::in_region("stale") });
    processes[0].tell("go");
    wait_for_computations(&processes, 1);
    processes[0].tell("finish");
    let old = results(&processes[..1]).remove(0);
    until_true("a refresh", || {
        let refresher = &mut processes[0];
        refresher.forget();
        refresher.tell("go");
        until_true("an answer", || refresher.has_said("value") || refresher.has_said("computing"));
        refresher.has_said("computing")
    });
    // It is suspended; no process waits for it, and no other one begins to compute.
    processes[1..].iter_mut().for_each(|process| process.tell("go"));
    assert_eq!(results(&processes[1..]), vec![old; 3]);
    assert_eq!(computing(&processes), [0]);
    processes[0].tell("finish");
    assert_eq!(results(&processes[..1]).len(), 1);
}

#[test]
fn every_process_computes_without_a_cluster() {
    let mut cluster = Cluster::start(&["london"]);
    let mut processes = ready(&cluster, 3, &Memoized::in_region("alone"));
    cluster[0].kill();
    all_miss(&mut processes);
    assert_eq!(wait_for_computations(&processes, 3).len(), 3);
    processes.iter_mut().for_each(|process| process.tell("finish"));
    for (process, result) in processes.iter().zip(results(&processes)) {
        assert_eq!(result, format!("value of process {}", process.child.id()));
    }
}
