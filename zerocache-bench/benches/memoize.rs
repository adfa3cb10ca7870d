//! A memoized call whose value is held, and the encoding of its key.
//!
//! The attribute asks a node over a socket of the loopback device, which runs in this process, and
//! takes its value from there; `cached` looks into a map of this process. They do different jobs: the
//! second figure is the floor, not a rival.

mod node;

use std::{hint::black_box, sync::LazyLock, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use zerocache_client::{ZerocacheClient, zerocache};
use zerocache_server::EmbeddedNode;

const CLUSTER: &str = "bench-memoize";

#[derive(Debug, Clone, Copy, PartialEq)]
struct Never;

#[zerocache(client(), "1h", call = remembered_call)]
fn remembered(id: u64, name: String) -> Result<String, Never> {
    Ok(format!("{name} {id}"))
}

#[cached::cached]
fn in_process(id: u64, name: String) -> String {
    format!("{name} {id}")
}

/// The node behind all calls; it ends with the process.
static NODE: LazyLock<EmbeddedNode> = LazyLock::new(|| node::start(CLUSTER));

fn client() -> ZerocacheClient {
    static CLIENT: LazyLock<ZerocacheClient> = LazyLock::new(|| {
        node::client(&NODE, CLUSTER).install().expect("the first client of this process")
    });
    CLIENT.clone()
}

fn benches(criterion: &mut Criterion) {
    let name = || String::from("a name of some thirty characters");
    remembered(7, name()).expect("it always succeeds");
    in_process(7, name());

    let mut group = criterion.benchmark_group("memoized call");
    group.bench_function("zerocache", |bencher| bencher.iter(|| remembered(7, name())));
    group.bench_function("cached", |bencher| bencher.iter(|| in_process(7, name())));
    group.finish();
    criterion.bench_function("key of (u64, String)", |bencher| {
        bencher.iter(|| black_box(remembered_call(7, name()).key()));
    });
}

criterion_group! {
    name = memoize;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(memoize);
