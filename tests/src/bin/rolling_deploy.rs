//! A process of one of two releases of a program, whose function gives values of two shapes:
//! `deployed SEED NODES RELEASE`, where RELEASE is `old` or `new`.
//!
//! It prints `ready` once it knows all NODES, and then answers each line with one line: `call ID`
//! calls the function and prints the origin of its value, `invalidate ID` deletes it, `computed`
//! prints how often the function has run in this process.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocache_client::{Ack, ZerocacheClient, memo::Call, report::CallOutcome, zerocache};
use zerocache_tests::cluster::builder;
use zerocache_tests::poll::until_true;

static COMPUTED: AtomicU64 = AtomicU64::new(0);

/// A unique name of this process's computations.
fn compute() -> String {
    let run = COMPUTED.fetch_add(1, Ordering::Relaxed);
    format!("{}.{run}", std::process::id())
}

// The name stands for one function of the program, in both of its releases: a process calls one of
// them.
#[zerocache(client, 600, skip(client), name = "deployed::user", ack = region)]
async fn old_user(client: &ZerocacheClient, id: u64) -> (u64, String) {
    (id, compute())
}

#[zerocache(client, 600, skip(client), name = "deployed::user", ack = region)]
async fn new_user(client: &ZerocacheClient, id: u64) -> (u64, String, Option<u32>) {
    (id, compute(), None)
}

/// The origin of a call's value, and the call's outcome.
async fn told<T>(call: Call<impl Future<Output = T>>, run: fn(T) -> String) -> String {
    let (value, report) = call.explain().await;
    let computed = report.outcome == CallOutcome::Miss;
    format!("{} {}", if computed { "computed" } else { "found" }, run(value))
}

async fn answer(client: &ZerocacheClient, is_old: bool, line: &str) -> Option<String> {
    let (word, id) = line.split_once(' ').unwrap_or((line, "0"));
    let id = id.parse().ok()?;
    Some(match (word, is_old) {
        ("call", true) => told(old_user(client, id), |user| user.1).await,
        ("call", false) => told(new_user(client, id), |user| user.1).await,
        ("invalidate", _) => {
            let call = if is_old {
                old_user(client, id).invalidate()
            } else {
                new_user(client, id).invalidate()
            };
            call.ack(Ack::Region).await.map(|_| "deleted".to_owned()).ok()?
        }
        ("computed", _) => COMPUTED.load(Ordering::Relaxed).to_string(),
        _ => return None,
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, nodes, release] = arguments.as_slice() else {
        eprintln!("usage: deployed SEED NODES old|new");
        return ExitCode::from(2);
    };
    let (Ok(seed), Ok(nodes)) = (seed.parse::<SocketAddr>(), nodes.parse::<usize>()) else {
        eprintln!("error: {seed} is no address, or {nodes} no number");
        return ExitCode::from(2);
    };
    let client = builder("london").mdns(false).seed(seed.to_string()).build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(client), Ok(runtime)) = (client, runtime) else {
        eprintln!("error: no client, or no runtime");
        return ExitCode::FAILURE;
    };
    until_true("a client that knows all nodes", || {
        client.nodes().iter().filter(|node| node.in_rotation).count() == nodes
    });
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(out, "{line}").and_then(|()| out.flush());
    if say("ready").is_err() {
        return ExitCode::FAILURE;
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = runtime.block_on(answer(&client, release == "old", &line));
        // A test that has ended reads no more.
        if say(answer.as_deref().unwrap_or("?")).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}
