//! A small run of the whole, and the end of everything that it starts.

use std::path::Path;

use shop::deployment::{REGIONS, Size};
use shop::report::{Name, Phase, Report};
use shop::scenario::{self, Plan};
use shop::stock::Stock;

/// Few rows and short phases: what is checked does not depend on time.
const PLAN: Plan = Plan {
    size: Size { nodes: 2, services: 2, stock: Stock { products: 30, reviews: 600, orders: 200 } },
    phase_ms: 1_000,
    clients: 3,
    pause_ms: 50,
    updates: 3,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_run_does_the_same_as_a_large_one() {
    let program = Path::new(env!("CARGO_BIN_EXE_shop"));
    let report =
        scenario::run(program, PLAN, |report| println!("{}", report.head())).await.expect("a run");
    println!("{report}");
    assert_eq!(report.problems(), Vec::<String>::new());

    let names: Vec<_> = report.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names, Name::ALL);
    for phase in &report.phases {
        assert!(!phase.answers.is_empty(), "no request: {}", phase.name);
        assert_eq!(phase.failed(), 0, "{}", phase.name);
    }

    let without = statements_per_request(&report, Name::Without);
    for name in [Name::Warm, Name::NodeKilled] {
        let with = statements_per_request(&report, name);
        assert!(
            with * 3.0 < without,
            "{with} statements for each request against {without}: {name}"
        );
    }
    let none = statements_per_request(&report, Name::NoNode);
    assert!(none > without / 4.0, "{none} statements for each request, from no cache");

    assert_eq!(report.updates.len(), PLAN.updates as usize);
    for update in &report.updates {
        assert_eq!(update.shown.len(), REGIONS.len() * usize::from(PLAN.size.services));
        assert!(update.shown.iter().all(Option::is_some), "{update:?}");
    }
}

fn statements_per_request(report: &Report, name: Name) -> f64 {
    let Phase { answers, counted, .. } = report.phase(name).expect("a phase");
    counted.statements as f64 / answers.len() as f64
}
