//! The checker can fail: clusters that are broken on purpose are caught, by the rule that is meant for
//! it.

use zerocache_sim::{Profile, Rule, Settings, Variant, run};

/// So many seeds find each of them.
const SEEDS: u64 = 60;

fn caught_by(variant: Variant, profile: Profile) -> Option<Rule> {
    let settings = Settings { variant, ..Settings::new(profile) };
    (0..SEEDS).find_map(|seed| run(seed, &settings).violation.map(|violation| violation.rule))
}

/// The rules that may catch a variant first, and the profile in which they do.
fn expected(variant: Variant) -> (Profile, &'static [Rule]) {
    match variant {
        Variant::NoTieBreak => (Profile::Small, &[Rule::Version, Rule::Order, Rule::Agreement]),
        Variant::TtlRestarted | Variant::LatenessIgnored => (Profile::Small, &[Rule::Expiry]),
        Variant::RelaysMarked => (Profile::Small, &[Rule::Hops]),
        Variant::WallStamps => (Profile::Small, &[Rule::Seen, Rule::Agreement]),
        Variant::QueuesUnbounded => (Profile::Evict, &[Rule::Queue]),
        Variant::BudgetIgnored => (Profile::Evict, &[Rule::Capacity]),
        Variant::ValuesTruncated => (Profile::Evict, &[Rule::Whole]),
        Variant::SeenForgotten => (Profile::Small, &[Rule::Seen]),
        Variant::NoTraces => (Profile::Small, &[Rule::Order]),
        Variant::EvictionsForgotten => (Profile::Evict, &[Rule::Order, Rule::Quiet]),
        Variant::NeverOutdated => (Profile::Retention, &[Rule::Agreement, Rule::Order]),
        Variant::TokensForgotten => (Profile::Leases, &[Rule::DeleteWins]),
        Variant::WaitsProlonged => (Profile::Leases, &[Rule::Waits]),
        Variant::ConnectionsConfused | Variant::LeasesScattered => {
            (Profile::Leases, &[Rule::Exclusive])
        }
        Variant::None => (Profile::Small, &[]),
    }
}

#[test]
fn every_broken_variant_is_caught() {
    for variant in Variant::BROKEN {
        let (profile, rules) = expected(variant);
        let rule = caught_by(variant, profile);
        let caught = rule.is_some_and(|rule| rules.contains(&rule));
        assert!(caught, "{} was caught by {rule:?}, not by {rules:?}", variant.as_str());
    }
}
