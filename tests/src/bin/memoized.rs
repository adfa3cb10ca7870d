//! A process that runs one memoized function under a lease, for the tests of leases: `memoized
//! REGION SEED NODES SCOPE LIFE_MS KEY`.
//!
//! It prints `ready` once it knows all NODES, and then reads commands, one a line: `go` calls the
//! function, `finish` completes a computation, `fail` makes it return an error, `delete` deletes
//! the key as another process would. It prints one line for each step: `missed` when the cache had
//! no value, `computing` when the function runs, `value V` or `error E` at the end; `deleted`.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use zerocache_client::{ZerocacheClient, ops::Tier, zerocache};
use zerocache_tests::cluster::builder;
use zerocache_tests::poll::{PATIENCE, until_true, until_true_async};

/// The TTL of values in seconds, unless `MEMOIZED_TTL_S` is set.
const TTL_S: u64 = 600;

/// The duration of leases.
static LIFE: OnceLock<Duration> = OnceLock::new();

/// The requested end of the computation; none while it has to continue.
static END: LazyLock<watch::Sender<Option<bool>>> = LazyLock::new(|| watch::Sender::new(None));

fn life() -> Duration {
    LIFE.get().copied().unwrap_or(PATIENCE)
}

fn ttl() -> u64 {
    let wanted = std::env::var("MEMOIZED_TTL_S").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(TTL_S)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A test that has ended reads no more.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn compute() -> Result<String, String> {
    say("computing");
    let mut end = END.subscribe();
    let ended = end.wait_for(Option::is_some).await.map(|end| *end);
    match ended {
        Ok(Some(true)) => Ok(format!("of process {}", std::process::id())),
        _ => Err(format!("of process {}", std::process::id())),
    }
}

#[zerocache(
    client, ttl(), skip(client),
    lease(region, life = life(), wait = PATIENCE),
    stale(while = PATIENCE)
)]
async fn in_region(client: &ZerocacheClient, key: &str) -> Result<String, String> {
    compute().await
}

#[zerocache(client, ttl(), skip(client), lease(all, life = life(), wait = PATIENCE))]
async fn in_all(client: &ZerocacheClient, key: &str) -> Result<String, String> {
    compute().await
}

async fn call(client: ZerocacheClient, scope: String, key: String) {
    client.set_memo_wait(PATIENCE);
    let before = client.memo_stats().misses;
    let watcher = tokio::spawn({
        let client = client.clone();
        async move {
            until_true_async("a miss", || client.memo_stats().misses > before).await;
            say("missed");
        }
    });
    let result = match scope.as_str() {
        "all" => in_all(&client, &key).await,
        _ => in_region(&client, &key).await,
    };
    watcher.abort();
    match result {
        Ok(value) => say(&format!("value {value}")),
        Err(error) => say(&format!("error {error}")),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [region, seed, nodes, scope, life_ms, key] = arguments.as_slice() else {
        eprintln!("usage: memoized REGION SEED NODES SCOPE LIFE_MS KEY");
        return ExitCode::from(2);
    };
    let (Ok(seed), Ok(nodes), Ok(life_ms)) =
        (seed.parse::<SocketAddr>(), nodes.parse::<usize>(), life_ms.parse())
    else {
        eprintln!("error: {seed} is no address, or {nodes} or {life_ms} no number");
        return ExitCode::from(2);
    };
    let _first = LIFE.set(Duration::from_millis(life_ms));
    // A node that is slow because the machine is busy is not a silent one: another would grant a lease, too.
    let client = builder(region)
        .mdns(false)
        .seed(seed.to_string())
        .tier_timeout(Tier::Local, PATIENCE)
        .tier_timeout(Tier::NextLocal, PATIENCE)
        .total_timeout(PATIENCE)
        .build();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (Ok(client), Ok(runtime)) = (client, runtime) else {
        eprintln!("error: no client, or no runtime");
        return ExitCode::FAILURE;
    };
    // The node that grants leases for a key depends on the known nodes.
    until_true("a client that knows all nodes", || {
        client.nodes().iter().filter(|node| node.in_rotation).count() == nodes
    });
    say("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "go" => {
                END.send_replace(None);
                drop(runtime.spawn(call(client.clone(), scope.clone(), key.clone())));
            }
            "delete" => {
                let call = match scope.as_str() {
                    "all" => in_all(&client, key).key(),
                    _ => in_region(&client, key).key(),
                };
                // Not through the call, which would keep this process from storing its value.
                match call.map(|key| client.delete(key).wait()) {
                    Some(Ok(_)) => say("deleted"),
                    outcome => eprintln!("error: {outcome:?}"),
                }
            }
            "finish" => drop(END.send_replace(Some(true))),
            "fail" => drop(END.send_replace(Some(false))),
            _ => eprintln!("error: {line}?"),
        }
    }
    ExitCode::SUCCESS
}
