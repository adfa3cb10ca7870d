//! A process that uses the cache and forks, for the tests of forking: `fork WAY SEED`.
//!
//! WAY selects where it forks: `blocking`, in code without a runtime; `current`, inside a
//! current-thread runtime, which the child drops; `threads`, inside a multi-thread runtime, whose
//! threads the child has lost. It exits with 0 when parent and child succeed, and otherwise reports
//! the failure.

use std::collections::BTreeSet;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use fork::{Fork, fork, waitpid};
use tokio::runtime::Builder;
use zerocache_client::memo::LeaseScope;
use zerocache_client::{Error, ZerocacheClient, zerocache};
use zerocache_tests::cluster::builder;
use zerocache_tests::http;
use zerocache_tests::poll::{PATIENCE, timed};

/// Longer than the deadline of an operation, on a busy machine too.
const BOUND: Duration = Duration::from_secs(15);

const REGION: &str = "london";

static RUNS: AtomicUsize = AtomicUsize::new(0);

#[zerocache("london", 600, near)]
fn double(n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::Relaxed);
    n * 2
}

#[zerocache("london", 600, lease = region)]
async fn triple(n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::Relaxed);
    n * 3
}

/// Forks while it is computed, under a lease.
#[zerocache("london", 600, lease = region, call = splitting_call)]
fn splitting(n: u64) -> Result<u32, Failed> {
    let forked = fork().map_err(|error| Failed(error.to_string()))?;
    let _ = n;
    Ok(match forked {
        Fork::Parent(child) => child.unsigned_abs(),
        Fork::Child => 0,
    })
}

/// A failed step.
#[derive(Debug)]
struct Failed(String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn check(holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(format!("does not hold: {what}"))) }
}

/// Fails when `work` takes longer than an operation may.
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> Result<T, Failed> {
    let (result, took) = timed(work);
    check(took < BOUND, &format!("{what} ends in time, not after {took:?}"))?;
    Ok(result)
}

/// The local ports of this process's connections to an address.
fn ports(to: SocketAddr) -> Result<BTreeSet<String>, Failed> {
    let SocketAddr::V4(to) = to else { return Err(Failed("an address of IPv4".to_owned())) };
    let [a, b, c, d] = to.ip().octets();
    let remote = format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", to.port());
    let mut own = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        // The one of the listing itself is gone.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        own.insert(target.to_string_lossy().into_owned());
    }
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let ports = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_ours = own.contains(&format!("socket:[{inode}]"));
        let is_open = *columns.get(2)? == remote && *state == "01";
        (is_open && is_ours).then(|| (*local).to_owned())
    });
    Ok(ports.collect())
}

/// The clients of a process before it forks.
fn prepare(seed: SocketAddr) -> Result<ZerocacheClient, Failed> {
    let cache = builder(REGION).mdns(false).seed(seed.to_string()).install()?;
    cache.wait_ready(PATIENCE)?;
    cache.put("parent", "of the parent", 600).wait()?;
    check(double(1) == 2 && double(1) == 2, "the parent memoizes")?;
    check(RUNS.load(Ordering::Relaxed) == 1, "the parent computes once")?;
    Ok(cache)
}

/// All kinds of calls, in code without a runtime: in a child, and in its parent afterwards.
fn use_all(cache: &ZerocacheClient, seed: SocketAddr, who: &str) -> Result<(), Failed> {
    let before = RUNS.load(Ordering::Relaxed);
    let read = in_time("a read", || cache.get("parent").wait())??;
    check(read.as_deref() == Some(b"of the parent"), "it reads what was stored before")?;
    let written = in_time("a write", || cache.put(who, who, 600).wait())??;
    check(written.version.is_some(), "it writes")?;
    check(in_time("a memoized call", || double(1))? == 2, "a memoized value")?;
    check(RUNS.load(Ordering::Relaxed) == before, "which is in the cache")?;
    let other = in_time("another call", || double(u64::from(std::process::id())))?;
    check(other == u64::from(std::process::id()) * 2, "another value")?;
    check(RUNS.load(Ordering::Relaxed) == before + 1, "which is computed")?;
    let many = in_time("a read of many", || cache.get_many(["parent", who]).wait())??;
    check(many.iter().all(Option::is_some), "it reads many")?;
    let found = in_time("the installed client", || {
        ZerocacheClient::get_instance(REGION).get(who).near().wait()
    })??;
    check(found.as_deref() == Some(who.as_bytes()), "it is the one that was installed")?;
    let fresh =
        in_time("a new client", || builder(REGION).mdns(false).seed(seed.to_string()).build())??;
    in_time("its start", || fresh.wait_ready(PATIENCE))??;
    check(in_time("its read", || fresh.get(who).wait())??.is_some(), "a new client reads")?;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let value = in_time("a lease", || runtime.block_on(triple(u64::from(std::process::id()))))?;
    check(value == u64::from(std::process::id()) * 3, "a value under a lease")?;
    check(cache.memo_stats().leases_granted > 0, "the lease is given")?;
    let removed = in_time("a delete", || runtime.block_on(async { cache.delete(who).await }))??;
    check(removed.version.is_some(), "it deletes")
}

/// Ends as a child does: with what it came to, and with nothing of its parent's.
fn end(result: Result<(), Failed>) -> ! {
    let code = match result {
        Ok(()) => 0,
        Err(Failed(why)) => {
            eprintln!("error: the child: {why}");
            1
        }
    };
    std::process::exit(code)
}

/// Waits for a child, and sees that the parent's connections are what they were.
fn outlive(
    child: i32,
    cache: &ZerocacheClient,
    (seed, before): (SocketAddr, &BTreeSet<String>),
) -> Result<(), Failed> {
    check(waitpid(child)? == 0, "the child ends well")?;
    let read = in_time("a read of the parent", || cache.get("parent").wait())??;
    check(read.is_some(), "the parent reads")?;
    let errors: u64 = cache.stats().errors.total();
    check(errors == 0, "no request of the parent failed")?;
    let after = ports(seed)?;
    check(before.is_subset(&after), &format!("{before:?} are open still, among {after:?}"))
}

/// A child forks too.
fn fork_again(cache: &ZerocacheClient, seed: SocketAddr) -> Result<(), Failed> {
    match fork()? {
        Fork::Child => end(use_all(cache, seed, "grandchild")),
        Fork::Parent(child) => check(waitpid(child)? == 0, "the grandchild ends well"),
    }
}

fn from_blocking_code(seed: SocketAddr) -> Result<(), Failed> {
    let cache = prepare(seed)?;
    let before = ports(seed)?;
    check(!before.is_empty(), "the parent is connected")?;
    match fork()? {
        Fork::Child => {
            let result = use_all(&cache, seed, "child").and_then(|()| fork_again(&cache, seed));
            // The last handles that this process has.
            drop(cache);
            ZerocacheClient::clear_instance(REGION);
            end(result);
        }
        Fork::Parent(child) => outlive(child, &cache, (seed, &before))?,
    }
    use_all(&cache, seed, "parent again")?;
    // Both processes continue the computation in which they fork: the parent has the lease, and
    // each stores its own value.
    let child = in_time("a function that forks", || splitting(1))??;
    if child == 0 {
        end(use_all(&cache, seed, "child of a computation"));
    }
    check(waitpid(child.cast_signed())? == 0, "the child of a computation ends well")?;
    let stored = splitting_call(1).peek().wait()?;
    check(
        matches!(stored, Some(Ok(0))) || matches!(stored, Some(Ok(of)) if of == child),
        "it is stored",
    )
}

fn from_a_runtime_of_one_thread(seed: SocketAddr) -> Result<(), Failed> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let cache = prepare(seed)?;
    let forked = runtime.block_on(async {
        cache.get("parent").await?;
        let before = ports(seed)?;
        let forked = fork()?;
        if let Fork::Child = forked {
            // The child shares the parent's reactor: the result is undefined, but the call must end
            // in time.
            let (read, took) = timed_read(&cache).await;
            check(took < BOUND, &format!("a read ends in time, not after {took:?}: {read:?}"))?;
        }
        Ok::<_, Failed>((forked, before))
    });
    match forked {
        Ok((Fork::Child, _)) => {
            // With the drivers of the parent's connections.
            drop(runtime);
            end(use_all(&cache, seed, "child"));
        }
        Ok((Fork::Parent(child), before)) => {
            // Not before: while the child runs this runtime too, it takes events of the parent's
            // sockets from the kernel, which both share (docs/client.md).
            outlive(child, &cache, (seed, &before))?;
            runtime.block_on(async { cache.get("parent").await })?;
            check(runtime.block_on(triple(7)) == 21, "the parent's runtime works")
        }
        Err(error) => Err(error),
    }
}

async fn timed_read(cache: &ZerocacheClient) -> (Result<bool, Error>, Duration) {
    let started = zerocache_net::clock::elapsed();
    let read = cache.get("parent").await;
    (read.map(|value| value.is_some()), zerocache_net::clock::elapsed().saturating_sub(started))
}

/// Polls `work` until `is_reached` holds.
async fn run_until(
    what: &str,
    mut work: Pin<&mut impl Future>,
    is_reached: impl Fn() -> bool,
) -> Result<(), Failed> {
    let reached = poll_fn(|context| {
        if work.as_mut().poll(context).is_ready() || is_reached() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    tokio::time::timeout(PATIENCE, reached).await?;
    check(is_reached(), what)
}

/// How many callers wait for a lease at a node.
fn lease_waiters(node: SocketAddr) -> Option<u64> {
    http::send(node, "GET", "/v1/stats", &[], b"").ok()?.json()["lease_waiters"].as_u64()
}

fn from_a_runtime_with_threads(seed: SocketAddr) -> Result<(), Failed> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cache = prepare(seed)?;
    // Another way to find the nodes: the two clients do not wait for each other inside the process.
    let apart = builder(REGION).mdns(false).seed(seed.to_string()).seed("127.0.0.1:9").build()?;
    runtime.block_on(async {
        cache.get("parent").await?;
        apart.ready(PATIENCE).await?;
        let never = async || pending::<Result<u64, Failed>>().await;
        let mut holder = pin!(cache.get_or_compute("leased", 600, never).lease(LeaseScope::Region));
        let granted = || cache.memo_stats().leases_granted == 1;
        run_until("the lease is granted", holder.as_mut(), granted).await?;
        let computed = async || Ok::<u64, Failed>(9);
        let mut waiter =
            pin!(apart.get_or_compute("leased", 600, computed).lease(LeaseScope::Region));
        let waits = || lease_waiters(seed) == Some(1);
        run_until("a request for the lease waits", waiter.as_mut(), waits).await?;
        let before = ports(seed)?;
        match fork()? {
            Fork::Child => {
                // No thread drives this runtime any more; the client must work without it.
                let (read, took) = timed_read(&cache).await;
                let in_time =
                    check(took < BOUND, &format!("a read ends in time, not after {took:?}"));
                let found = check(matches!(read, Ok(true)), &format!("it reads: {read:?}"));
                let three = triple(2).await;
                // The request for the lease is the parent's: the child computes without it.
                let nine = waiter.await?;
                let computed = check(three == 6 && nine == 9, "it computes");
                // A runtime whose threads are gone cannot be dropped.
                end(in_time.and(found).and(computed));
            }
            Fork::Parent(child) => {
                tokio::task::block_in_place(|| outlive(child, &cache, (seed, &before)))?;
                check(triple(7).await == 21, "the parent's runtime works")
            }
        }
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, seed] = arguments.as_slice() else {
        eprintln!("usage: forked WAY SEED");
        return ExitCode::from(2);
    };
    let Ok(seed) = seed.parse::<SocketAddr>() else {
        eprintln!("error: {seed} is no address");
        return ExitCode::from(2);
    };
    let result = match way.as_str() {
        "blocking" => from_blocking_code(seed),
        "current" => from_a_runtime_of_one_thread(seed),
        "threads" => from_a_runtime_with_threads(seed),
        _ => Err(Failed(format!("{way} is no way to fork"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
