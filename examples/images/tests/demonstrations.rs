//! Each demonstration, small: what is checked does not depend on time.

use std::path::PathBuf;

use images::demo::{DemoArgs, Name, Report, run};

async fn quick(name: Name) -> Report {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_images"));
    let report = run(program, &DemoArgs { name, quick: true }).await.expect("a run");
    println!("{report}");
    assert!(report.holds(), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_their_images() {
    quick(Name::Replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_can_be_located() {
    quick(Name::Locations).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_purge_ends_all_variants() {
    quick(Name::Purge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_node_is_no_storm() {
    quick(Name::Storm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go() {
    quick(Name::Scale).await;
}
