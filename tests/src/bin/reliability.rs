//! Measures what `docs/reliability.md` promises, on real processes in a network of their own, and
//! prints a Markdown row for each: `reliability [NAME…]`, all of them when none is named.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use zerocache_tests::namespace;
use zerocache_tests::net::Net;
use zerocache_tests::probes::Probes;
use zerocache_tests::reliability::detection::Death;
use zerocache_tests::reliability::{
    agreement, budgets, copying, detection, frozen, heal, loss_window, median_and_max, restarts,
    steadiness,
};
use zerocache_tests::setup::Setup;

/// A measurement: its name, and what prints its rows.
type Measurement = (&'static str, fn(&Probes));

/// All of them, in the order of the table.
const ALL: &[Measurement] = &[
    ("agreement", agreement),
    ("agreement-pauses", agreement_pauses),
    ("heal-10k", |probes| heal(probes, heal::Part::Region(2), 10_000, 5)),
    ("heal-100k", |probes| heal(probes, heal::Part::Region(2), 100_000, 3)),
    ("heal-node", |probes| heal(probes, heal::Part::Node(1), 10_000, 5)),
    ("frozen", frozen),
    ("budgets", budgets),
    ("loss-window", loss_window),
    ("detection", detection),
    ("lossy", lossy),
    ("pauses", pauses),
    ("one-way", one_way),
    ("rolling", rolling),
    ("copy", copying),
    ("whole", whole),
];

/// Nodes in each of the regions of the large network.
const SIZES: [usize; 3] = [3, 3, 3];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| ALL.iter().all(|(known, _)| known != name)) {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("error: no measurement is called {unknown}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    if wanted.len() != 1 {
        // Each in a namespace of its own: the network of one is not that of the next.
        return each_alone(&wanted);
    }
    match namespace::run_program() {
        Ok(None) => {}
        Ok(Some(code)) => return code,
        Err(why) => {
            eprintln!("error: network namespaces are not permitted here ({why})");
            return ExitCode::FAILURE;
        }
    }
    let probes = Probes::new();
    for (_, measure) in ALL.iter().filter(|(name, _)| *name == wanted[0]) {
        measure(&probes);
    }
    ExitCode::SUCCESS
}

/// Starts this program for each of the measurements that are wanted, all when none is named.
fn each_alone(wanted: &[String]) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("| measurement | how | figure |\n|---|---|---|");
    let mut failed = false;
    let named = |name: &str| wanted.is_empty() || wanted.iter().any(|each| each == name);
    for (name, _) in ALL.iter().filter(|(name, _)| named(name)) {
        let ended = std::process::Command::new(&program).arg(name).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("error: {name} failed");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints one row.
fn row(name: &str, how: &str, figure: &str) {
    println!("| {name} | {how} | {figure} |");
    let _shown_soon = std::io::stdout().flush();
}

/// Formats a time in milliseconds, or its absence.
fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{} ms", time.as_millis()))
}

/// A time in milliseconds with two digits.
fn fine_ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

/// Formats the figures of repetitions, some of which may have failed.
fn summary(figures: &[Option<Duration>]) -> String {
    let failed = figures.iter().filter(|figure| figure.is_none()).count();
    let figures: Vec<_> = figures.iter().copied().flatten().collect();
    let text = median_and_max(&figures);
    if failed == 0 { text } else { format!("{text}; {failed} times never") }
}

/// With this much memory for entries, and logs of changes only.
fn with_bytes(max_bytes: &'static str) -> impl Fn(Setup) -> Setup + Send + Sync + 'static {
    move |mut setup| {
        setup.max_bytes = max_bytes;
        setup
    }
}

fn agreement(probes: &Probes) {
    let mut net = Net::start(&SIZES);
    for seed in 1..=5 {
        let time = Duration::from_secs(40);
        let faults = agreement::Fault::ALL.to_vec();
        let plan = agreement::Plan { pairs: 1_000, time, faults, seed };
        agree("agreement", &mut net, probes, &plan);
    }
}

/// With faults through which nothing is lost even without repair.
fn agreement_pauses(probes: &Probes) {
    let plan = agreement::Plan {
        pairs: 1_000,
        time: Duration::from_secs(20),
        faults: vec![agreement::Fault::Pause],
        seed: 8,
    };
    agree("agreement-pauses", &mut Net::start(&SIZES), probes, &plan);
}

fn agree(name: &str, net: &mut Net, probes: &Probes, plan: &agreement::Plan) {
    let found = agreement::measure(net, probes, plan);
    let how = format!(
        "{} pairs of writes and deletes, {} acknowledged; {} faults",
        plan.pairs, found.acknowledged, found.injected
    );
    let figure = format!(
        "{} disagreements after {}; {} at the end of the last fault",
        found.disagreements,
        ms(found.took),
        found.differed
    );
    row(name, &how, &figure);
}

fn heal(probes: &Probes, part: heal::Part, count: usize, times: usize) {
    let mut net = Net::start_with(&SIZES, with_bytes("512MiB"));
    let mut figures = Vec::new();
    for round in 0..times {
        let time = Duration::from_secs(10);
        if round > 0 {
            net.restart_all();
        }
        let found = heal::measure(&mut net, probes, part, round, count, time);
        eprintln!("{found:?}");
        figures.push(found);
    }
    let took: Vec<_> = figures.iter().map(|found| found.took).collect();
    let in_region: Vec<_> = figures.iter().map(|found| found.in_region).collect();
    let reached: Vec<_> = figures.iter().map(|found| found.reached).collect();
    let name = format!("heal {part:?}, {count} keys");
    let mut figure = format!("agreement: {}; reached: {}", summary(&took), summary(&reached));
    if let heal::Part::Node(_) = part {
        figure += &format!("; agreement in its region: {}", summary(&in_region));
    }
    row(&name, &format!("cut off for 10 s of writes; {times} times"), &figure);
}

fn frozen(_: &Probes) {
    let mut net = Net::start(&[2, 1]);
    for round in 1..=5 {
        let found = frozen::measure(&mut net, Duration::from_secs(5));
        let how = format!("one local node of two frozen, 4 callers, round {round}");
        let figure = format!(
            "p99 {:?} before, {:?} after; most {:?} before, {:?} after; {} reads met it, the last {} after the freeze, and took up to {}; \
             {} without a value",
            found.before.p99,
            found.after.p99,
            found.before.most,
            found.after.most,
            found.met.count,
            ms(Some(found.noticed)),
            ms(Some(found.met.most)),
            found.missed
        );
        row("frozen", &how, &figure);
        net.cluster.wait_until_joined();
    }
}

fn budgets(_: &Probes) {
    let net = Net::start_with(&[2], |mut setup| {
        setup.max_bytes =
            if setup.listen.ip().to_string() == "10.0.0.1" { "32MiB" } else { "16MiB" };
        setup
    });
    let found = budgets::measure(&net, 60_000, Duration::from_secs(20), Duration::from_secs(20));
    let figure = format!(
        "hit ratio {:.4}; {:.0} reads/s, {:.0} writes/s; {:.1} copies/s, of which repair {:?}/s",
        found.hit_ratio,
        found.reads_each_second,
        found.writes_each_second,
        found.copies_each_second,
        found.repaired_each_second
    );
    row("budgets", "32 and 16 MiB, 60,000 keys of 1 KiB", &figure);
}

fn loss_window(probes: &Probes) {
    const ROUNDS: usize = 20;
    let mut net = Net::start_with(&[3, 2], with_bytes("512MiB"));
    let loads = [(10, 10), (1, 0), (64, 0)];
    for (writers, pause_ms) in loads {
        let load = loss_window::Load { writers, pause: Duration::from_millis(pause_ms) };
        let mut losses = Vec::new();
        let mut random = zerocache_tests::random::Random::new(9);
        for round in 0..ROUNDS {
            let time = Duration::from_millis(500 + random.below(1_000) as u64);
            let round = (writers * 100 + pause_ms as usize) * 100 + round;
            losses.push(loss_window::measure(&mut net, probes, round, load, time));
        }
        let acknowledged: usize = losses.iter().map(|loss| loss.acknowledged).sum();
        let lost: usize = losses.iter().map(|loss| loss.lost).sum();
        let most = losses.iter().map(|loss| loss.lost).max().unwrap_or_default();
        let mut windows: Vec<_> = losses.iter().map(|loss| loss.window).collect();
        windows.sort_unstable();
        let rate = losses.iter().map(|loss| loss.each_second).sum::<u64>() / ROUNDS as u64;
        let how = format!("{ROUNDS} kills, {writers} writers, {rate} writes/s");
        let figure = format!(
            "{lost} of {acknowledged} lost, most {most} in one kill; window median {}, most {}",
            fine_ms(windows[ROUNDS / 2]),
            fine_ms(windows[ROUNDS - 1])
        );
        row("loss-window", &how, &figure);
    }
}

fn detection(_: &Probes) {
    const ROUNDS: usize = 5;
    let mut net = Net::start(&SIZES);
    for death in Death::ALL {
        let mut rounds = Vec::new();
        for n in 0..ROUNDS {
            // One that goes down again and again is let in later.
            net.restart_all();
            rounds.push(detection::measure(&mut net, n % SIZES[0], death));
        }
        let of = |part: fn(&detection::Detection) -> Option<Duration>| {
            summary(&rounds.iter().map(part).collect::<Vec<_>>())
        };
        let figure = format!(
            "out: nodes {}, client {}; back: nodes {}, client {}",
            of(|found| found.out_of_nodes),
            of(|found| found.out_of_client),
            of(|found| found.back_in_nodes),
            of(|found| found.back_in_client)
        );
        row("detection", &format!("{death:?}, {ROUNDS} times"), &figure);
    }
}

fn lossy(_: &Probes) {
    let time = Duration::from_secs(60);
    let mut net = Net::start(&SIZES);
    for (percent, tcp_only) in [(30, false), (5, true)] {
        let changes = steadiness::lossy(&mut net, percent, tcp_only, time);
        let how = format!("{percent} % of packets, TCP only: {tcp_only}, {time:?}, 9 nodes");
        row("lossy", &how, &format!("{} removals", changes.out));
        net.cluster.wait_until_joined();
    }
}

fn pauses(_: &Probes) {
    let mut net = Net::start(&SIZES);
    let changes = steadiness::pausing(&mut net, Duration::from_millis(1_000), 27);
    row("pauses", "27 times 1 s of SIGSTOP, 9 nodes", &format!("{} removals", changes.out));
}

fn one_way(_: &Probes) {
    let mut net = Net::start(&SIZES);
    for (what, from, to) in [("in a region", 0, 1), ("across regions", 0, 4)] {
        let found = steadiness::one_way(&mut net, from, to, Duration::from_secs(30));
        row("one-way", &format!("a link {what} for 30 s"), &format!("{found:?}"));
    }
}

fn rolling(probes: &Probes) {
    let mut net = Net::start(&[3, 1]);
    let found = restarts::rolling(&mut net, probes, 20_000, Duration::from_secs(3));
    let ratios: Vec<_> =
        found.seconds.iter().map(|second| format!("{:.4}", second.ratio())).collect();
    let figure = format!(
        "{} of {} reads without a value; longest gap {:?}; ready {:?}; hit ratio per second {}",
        found.others,
        found.hits + found.others,
        found.longest_gap,
        found.ready,
        ratios.join(" ")
    );
    row("rolling", "3 nodes restarted one after the other, 20,000 keys", &figure);
}

fn copying(probes: &Probes) {
    let mut net = Net::without_nodes(&[2], with_bytes("512MiB"));
    let node = net.setup(0).start();
    net.cluster.nodes.push(node);
    let found = copying::measure(&mut net, probes, 100_000, Duration::from_secs(10));
    row(
        "copy",
        "100,000 entries of 1 KiB",
        &format!("ready after {}; lacked {}", ms(found.ready), found.lacked),
    );
}

/// All nodes at once, each with a file for what it holds.
fn whole(probes: &Probes) {
    let files = tempfile::tempdir().expect("a folder");
    let path = files.path().to_owned();
    let mut net = Net::start_with(&[2, 2], move |setup| {
        let file = path.join(setup.listen.ip().to_string());
        setup.flag("--snapshot", file.display())
    });
    let found = restarts::whole(&mut net, probes, 20_000);
    let how = "4 nodes with --snapshot end and start at the same time, 20,000 keys";
    let figure = format!("ready after {}; keys lacked by each {:?}", ms(found.ready), found.lacked);
    row("whole", how, &figure);
}
