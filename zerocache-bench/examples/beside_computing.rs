//! Latency of readers that share their runtime with tasks that compute.
//!
//! `cargo run --release -p zerocache-bench --example beside_computing -- [--before PATH]`
//!
//! A client that lets requests wait for others must not let them wait for tasks that compute. This program
//! starts a node, and callers on a runtime with two workers: some read as fast as they are answered, others
//! compute for a while, yield, and compute again. With `--before` it takes turns with an older build of
//! itself, and prints the ratios of the medians within the rounds.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use zerocache_client::ZerocacheClient;
use zerocache_net::clock;
use zerocache_server::config::Invocation;

/// The first argument of the child that is the node.
const SERVE: &str = "serve";

/// What the node prints before its address.
const LISTENING: &str = "zerocache-server listening on ";

/// Workers of the callers' runtime and of the node.
const WORKERS: usize = 2;

/// Entries that are read, and the size of their values.
const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1_024;

/// The time before a cell is measured.
const WARMUP: Duration = Duration::from_millis(200);

/// Longer latencies count as this one, in microseconds.
const MICROS_MAX: u64 = 60_000_000;

#[derive(Clone, Debug, Parser)]
struct Args {
    /// An older build of this example, to compare with
    #[arg(long)]
    before: Option<PathBuf>,

    /// Tasks that read
    #[arg(long, value_delimiter = ',', default_value = "1,4,64")]
    readers: Vec<usize>,

    /// Tasks that compute
    #[arg(long, value_delimiter = ',', default_value = "0,4,16")]
    computing: Vec<usize>,

    /// How long each of them computes before it yields, in microseconds
    #[arg(long, value_delimiter = ',', default_value = "200")]
    micros: Vec<u64>,

    /// How long each cell is measured
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// Rounds; with --before both builds measure each cell once in a round
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Measures each cell once, for the program that compares
    #[arg(long, hide = true)]
    turn: bool,
}

/// One combination of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    readers: usize,
    computing: usize,
    micros: u64,
}

/// What came out of a cell, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    p50: f64,
    p99: f64,
    ops_per_s: f64,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let outcome = if args.nth(1).is_some_and(|role| role == SERVE) {
        serve(args)
    } else {
        let args = Args::parse();
        if args.turn { turn(&args) } else { compare(&args) }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?)
}

/// The node. It ends with its parent, who holds the other end of its input.
fn serve(args: impl Iterator<Item = OsString>) -> Result<()> {
    std::thread::spawn(|| {
        let _end = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let argv = std::iter::once(SERVE.into()).chain(args).collect();
    let Ok(invocation) = Invocation::parse(argv, |_| None) else { bail!("wrong flags") };
    runtime()?.block_on(zerocache_server::run(invocation.server))?;
    Ok(())
}

/// A running node; killed when dropped.
struct Node(Child);

impl Node {
    fn start() -> Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, "--region", "bench", "--address", "127.0.0.1", "--port", "0"])
            .args(["--discovery", "none", "--max-bytes", "256MiB", "--log", "warn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("a pipe")?;
        let node = Self(child);
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.strip_prefix(LISTENING)?.trim().to_owned()));
        Ok((node, address.context("the node does not say where it listens")?))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cells(args: &Args) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &computing in &args.computing {
        for &micros in args.micros.iter().take(if computing == 0 { 1 } else { usize::MAX }) {
            cells.extend(args.readers.iter().map(|&readers| Cell { readers, computing, micros }));
        }
    }
    cells
}

/// Measures each cell once, and prints a line for each.
fn turn(args: &Args) -> Result<()> {
    let (_node, address) = Node::start()?;
    runtime()?.block_on(async {
        let client = ZerocacheClient::builder("bench").mdns(false).seed(address).build()?;
        client.ready(Duration::from_secs(10)).await?;
        for key in 0..KEYS {
            client.put(name(key), vec![b'v'; VALUE_BYTES], 3_600).await?;
        }
        for cell in cells(args) {
            let Outcome { p50, p99, ops_per_s } =
                measure(&client, cell, Duration::from_secs_f64(args.seconds)).await?;
            println!("{p50} {p99} {ops_per_s}");
        }
        Ok(())
    })
}

fn name(key: usize) -> String {
    format!("key{key:029}")
}

async fn measure(client: &ZerocacheClient, cell: Cell, length: Duration) -> Result<Outcome> {
    let begin = clock::elapsed() + WARMUP;
    let end = begin + length;
    let computing: Vec<_> = (0..cell.computing)
        .map(|_| {
            tokio::spawn(async move {
                while clock::elapsed() < end {
                    let until = clock::elapsed() + Duration::from_micros(cell.micros);
                    while clock::elapsed() < until {
                        std::hint::spin_loop();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let names: Arc<Vec<String>> = Arc::new((0..KEYS).map(name).collect());
    let reading: Vec<_> = (0..cell.readers)
        .map(|reader| {
            let (client, names) = (client.clone(), Arc::clone(&names));
            tokio::spawn(read(client, names, reader, (begin, end)))
        })
        .collect();
    let mut latency = Histogram::<u64>::new_with_max(MICROS_MAX, 3)?;
    for reading in reading {
        latency.add(reading.await??)?;
    }
    for computing in computing {
        computing.await?;
    }
    Ok(Outcome {
        p50: latency.value_at_quantile(0.5) as f64,
        p99: latency.value_at_quantile(0.99) as f64,
        ops_per_s: latency.len() as f64 / length.as_secs_f64(),
    })
}

/// Reads until the end. Returns the latencies.
async fn read(
    client: ZerocacheClient,
    names: Arc<Vec<String>>,
    reader: usize,
    (begin, end): (Duration, Duration),
) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(MICROS_MAX, 3)?;
    let mut key = reader * 7_919;
    loop {
        key = (key + 1) % KEYS;
        let asked = clock::elapsed();
        client.get(&names[key]).await?.context("a miss")?;
        let answered = clock::elapsed();
        if answered >= end {
            return Ok(latency);
        }
        if asked >= begin {
            latency.saturating_record((answered - asked).as_micros() as u64);
        }
    }
}

/// Runs this build, and the older one if there is one, and prints the table.
fn compare(args: &Args) -> Result<()> {
    let own = std::env::current_exe()?;
    let programs: Vec<&Path> = std::iter::once(&*own).chain(args.before.as_deref()).collect();
    let cells = cells(args);
    // By program, round and cell.
    let mut outcomes = vec![Vec::new(); programs.len()];
    for round in 0..args.rounds {
        for place in 0..programs.len() {
            let which = (place + round) % programs.len();
            outcomes[which].push(run(programs[which], args, cells.len())?);
        }
    }
    let mut table = String::from("readers  computing   us |  p50 us   p99 us    ops/s");
    if programs.len() > 1 {
        table.push_str(" | p50 before  p99 before | p50 / before        p99 / before");
    }
    for (at, cell) in cells.iter().enumerate() {
        let of = |which: usize, figure: fn(&Outcome) -> f64| -> Vec<f64> {
            outcomes[which].iter().map(|round: &Vec<Outcome>| figure(&round[at])).collect()
        };
        let Cell { readers, computing, micros } = cell;
        let micros = if *computing == 0 { 0 } else { *micros };
        let [p50, p99, ops] =
            [of(0, |o| o.p50), of(0, |o| o.p99), of(0, |o| o.ops_per_s)].map(median);
        write!(table, "\n{readers:7}  {computing:9} {micros:4} | {p50:7.0} {p99:8.0} {ops:8.0}")?;
        if programs.len() > 1 {
            let ratios = |figure: fn(&Outcome) -> f64| {
                let mut ratios: Vec<f64> = of(0, figure)
                    .into_iter()
                    .zip(of(1, figure))
                    .map(|(now, before)| now / before)
                    .collect();
                ratios.sort_by(f64::total_cmp);
                format!(
                    "{:.2} ({:.2} to {:.2})",
                    median(ratios.clone()),
                    ratios[0],
                    ratios[ratios.len() - 1]
                )
            };
            let [p50, p99] = [of(1, |o| o.p50), of(1, |o| o.p99)].map(median);
            let (half, tail) = (ratios(|o| o.p50), ratios(|o| o.p99));
            write!(table, " | {p50:10.0} {p99:11.0} | {half:19} {tail}")?;
        }
    }
    println!("{table}");
    Ok(())
}

fn run(program: &Path, args: &Args, cells: usize) -> Result<Vec<Outcome>> {
    let list = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
    let output = Command::new(program)
        .arg("--turn")
        .args(["--readers", &list(&mut args.readers.iter().map(ToString::to_string))])
        .args(["--computing", &list(&mut args.computing.iter().map(ToString::to_string))])
        .args(["--micros", &list(&mut args.micros.iter().map(ToString::to_string))])
        .args(["--seconds", &args.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    let text = String::from_utf8(output.stdout)?;
    let outcomes: Vec<Outcome> = text.lines().filter_map(outcome).collect();
    if outcomes.len() != cells {
        bail!("{} measured {} of {cells} cells", program.display(), outcomes.len());
    }
    Ok(outcomes)
}

fn outcome(line: &str) -> Option<Outcome> {
    let mut numbers = line.split(' ').map_while(|number| number.parse().ok());
    Some(Outcome { p50: numbers.next()?, p99: numbers.next()?, ops_per_s: numbers.next()? })
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
