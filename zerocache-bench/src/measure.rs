//! Driving one contender for a while, and what comes out of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use hdrhistogram::Histogram;

use crate::clock;
use crate::data::Data;
use crate::usage;

/// The longest latency that is distinguished from longer ones.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// The time that a measurement may take beyond its plan before the run fails.
const OVERTIME_MAX: Duration = Duration::from_secs(15);
/// Latencies of up to this many tasks keep three significant digits, those of more tasks two, so that
/// the counts stay in the processor's cache.
const PRECISE_TASKS_MAX: usize = 16;

/// One caller, with one operation at a time.
pub trait Driver: Send + 'static {
    /// Reads a key and checks what comes.
    fn get(&mut self, data: &Data, key: usize) -> impl Future<Output = Result<()>> + Send;

    /// Writes the value of a key.
    fn put(&mut self, data: &Data, key: usize) -> impl Future<Output = Result<()>> + Send;
}

/// All callers of one contender.
#[async_trait]
pub trait Load: Send {
    /// Writes every key once.
    async fn fill(&mut self, data: &Arc<Data>) -> Result<()>;

    /// Lets all callers work for the time of the plan.
    async fn measure(&mut self, plan: &Plan) -> Result<Sample>;
}

/// The plan of one measurement.
#[derive(Clone)]
pub struct Plan {
    pub data: Arc<Data>,
    /// The time before measurements begin.
    pub warmup: Duration,
    pub length: Duration,
    /// The processes of this contender.
    pub servers: Vec<u32>,
    /// The processes of all contenders; their CPU time is not foreign.
    pub all_servers: Vec<u32>,
    /// The core to which everything is pinned, if it is.
    pub core: Option<usize>,
}

/// One contender in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    pub ops: u64,
    pub seconds: f64,
    pub latency: Histogram<u64>,
    pub client_cpu: Duration,
    pub server_cpu: Duration,
    pub server_rss: u64,
    /// Foreign CPU use, in cores.
    pub other_cpu: f64,
    pub errors: Vec<String>,
}

/// The callers of a contender, one a task.
pub struct Callers<D>(pub Vec<D>);

#[async_trait]
impl<D: Driver> Load for Callers<D> {
    async fn fill(&mut self, data: &Arc<Data>) -> Result<()> {
        let tasks = self.0.len();
        let mut running = Vec::with_capacity(tasks);
        for (first, mut driver) in self.0.drain(..).enumerate() {
            let data = Arc::clone(data);
            running.push(tokio::spawn(async move {
                for key in (first..data.count()).step_by(tasks) {
                    driver
                        .put(&data, key)
                        .await
                        .with_context(|| format!("write {}", data.key(key)))?;
                }
                Ok::<_, anyhow::Error>(driver)
            }));
        }
        for task in running {
            self.0.push(task.await??);
        }
        Ok(())
    }

    async fn measure(&mut self, plan: &Plan) -> Result<Sample> {
        let begin = clock::now() + plan.warmup;
        let end = begin + plan.length;
        let tasks = self.0.len();
        let digits = if tasks <= PRECISE_TASKS_MAX { 3 } else { 2 };
        let latencies = Arc::new(Latencies::new(digits)?);
        let mut running = Vec::with_capacity(tasks);
        for (number, driver) in self.0.drain(..).enumerate() {
            // Each task begins elsewhere in the sequence; a prime keeps them apart.
            let (data, latencies) = (Arc::clone(&plan.data), Arc::clone(&latencies));
            let caller = Caller { at: number * 7_919, begin, end, data, latencies };
            running.push(tokio::spawn(caller.run(driver)));
        }
        let observed = plan.clone();
        let observer = tokio::task::spawn_blocking(move || observe(&observed, begin, end));
        let mut errors = Vec::new();
        let all = async {
            for task in running {
                let ended = task.await?;
                errors.extend(ended.error.map(|error| format!("{error:#}")));
                self.0.push(ended.driver);
            }
            Ok::<_, anyhow::Error>(())
        };
        if tokio::time::timeout(plan.warmup + plan.length + OVERTIME_MAX, all).await.is_err() {
            bail!("an operation does not end");
        }
        let (used, server_rss) = observer.await??;
        let seconds = plan.length.as_secs_f64();
        let latency = latencies.sum(digits)?;
        Ok(Sample {
            ops: latency.len(),
            seconds,
            latency,
            client_cpu: used.client,
            server_cpu: used.servers,
            server_rss,
            other_cpu: used.others() / used.seconds,
            errors,
        })
    }
}

/// The latencies of one turn, by thread: a histogram for each task would take the processor's cache from
/// the contender that is measured.
struct Latencies(Vec<Mutex<Histogram<u64>>>);

impl Latencies {
    /// Creates one histogram for each worker of this runtime.
    fn new(digits: u8) -> Result<Self> {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let histogram = |_| Ok(Mutex::new(Histogram::new_with_max(LATENCY_NS_MAX, digits)?));
        Ok(Self((0..workers).map(histogram).collect::<Result<_>>()?))
    }

    fn record(&self, nanos: u64) {
        thread_local! {
            static THREAD: usize = {
                static THREADS: AtomicUsize = AtomicUsize::new(0);
                THREADS.fetch_add(1, Ordering::Relaxed)
            };
        }
        let own = THREAD.with(|thread| thread % self.0.len());
        lock(&self.0[own]).saturating_record(nanos);
    }

    fn sum(&self, digits: u8) -> Result<Histogram<u64>> {
        let mut sum = Histogram::new_with_max(LATENCY_NS_MAX, digits)?;
        for histogram in &self.0 {
            sum.add(&*lock(histogram))?;
        }
        Ok(sum)
    }
}

fn lock(histogram: &Mutex<Histogram<u64>>) -> MutexGuard<'_, Histogram<u64>> {
    histogram.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work of one task.
struct Caller {
    at: usize,
    begin: Instant,
    end: Instant,
    data: Arc<Data>,
    latencies: Arc<Latencies>,
}

struct CallerResult<D> {
    driver: D,
    error: Option<anyhow::Error>,
}

impl Caller {
    /// Ends early at an error: after one, a connection may be out of step.
    async fn run<D: Driver>(mut self, mut driver: D) -> CallerResult<D> {
        let mut before = clock::now();
        loop {
            let step = self.data.step(self.at);
            self.at += 1;
            let key = step.key as usize;
            let done = if step.write {
                driver.put(&self.data, key).await
            } else {
                driver.get(&self.data, key).await
            };
            if let Err(error) = done {
                return CallerResult { driver, error: Some(error) };
            }
            let after = clock::now();
            if after >= self.end {
                return CallerResult { driver, error: None };
            }
            if after >= self.begin {
                let passed = u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX);
                self.latencies.record(passed);
            }
            before = after;
        }
    }
}

/// CPU time used between two moments.
struct CpuUsage {
    client: Duration,
    servers: Duration,
    all_servers: Duration,
    machine: Duration,
    seconds: f64,
}

impl CpuUsage {
    fn between(before: &Counters, after: &Counters) -> Self {
        Self {
            client: after.client.saturating_sub(before.client),
            servers: after.servers.saturating_sub(before.servers),
            all_servers: after.all_servers.saturating_sub(before.all_servers),
            machine: after.machine.saturating_sub(before.machine),
            seconds: (after.at - before.at).as_secs_f64(),
        }
    }

    /// Seconds of CPU that neither we nor any contender used.
    fn others(&self) -> f64 {
        (self.machine.as_secs_f64() - (self.client + self.all_servers).as_secs_f64()).max(0.0)
    }
}

/// Measures the CPU use of other processes for `time` while ours are idle; in cores.
pub async fn foreign_cpu_while_idle(plan: &Plan, time: Duration) -> Result<f64> {
    let before = Counters::read(plan)?;
    tokio::time::sleep(time).await;
    let used = CpuUsage::between(&before, &Counters::read(plan)?);
    Ok(used.others() / used.seconds)
}

/// Reads the counters at the beginning and at the end, on a thread of its own: the callers keep the
/// runtime too busy to be on time.
fn observe(plan: &Plan, begin: Instant, end: Instant) -> Result<(CpuUsage, u64)> {
    thread::sleep(begin.saturating_duration_since(clock::now()));
    let before = Counters::read(plan)?;
    thread::sleep(end.saturating_duration_since(clock::now()));
    let after = Counters::read(plan)?;
    let resident: Vec<u64> =
        plan.servers.iter().map(|pid| usage::resident_bytes(*pid)).collect::<Result<_>>()?;
    let used = CpuUsage::between(&before, &after);
    Ok((used, resident.iter().sum()))
}

struct Counters {
    at: Instant,
    client: Duration,
    servers: Duration,
    all_servers: Duration,
    machine: Duration,
}

impl Counters {
    fn read(plan: &Plan) -> Result<Self> {
        let sum =
            |pids: &[u32]| pids.iter().map(|pid| usage::process_cpu(*pid, true)).sum::<Result<_>>();
        Ok(Self {
            at: clock::now(),
            client: usage::process_cpu(std::process::id(), false)?,
            servers: sum(&plan.servers)?,
            all_servers: sum(&plan.all_servers)?,
            machine: usage::machine_cpu(plan.core)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_cpu_time_is_foreign() {
        let used = |machine| CpuUsage {
            client: Duration::from_millis(800),
            servers: Duration::from_millis(500),
            all_servers: Duration::from_millis(600),
            machine: Duration::from_millis(machine),
            seconds: 1.0,
        };
        assert!((used(1_700).others() - 0.3).abs() < 1e-9);
        // The counters of processes and of the machine do not agree to the tick.
        assert_eq!(used(1_390).others(), 0.0);
    }
}
