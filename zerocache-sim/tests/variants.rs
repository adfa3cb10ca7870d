//! The checker can fail: clusters that are broken on purpose are caught, by the rule that is meant
//! for it, where the product breaks none.

use std::thread;

use zerocache_sim::{Profile, Rule, Settings, Variant, run};

/// So many seeds find each of them.
const SEEDS: u64 = 60;

/// Returns where a variant is caught: a profile, the first seed, and the rules that may catch it
/// first.
fn expected(variant: Variant) -> (Profile, u64, &'static [Rule]) {
    let (profile, rules): (_, &[Rule]) = match variant {
        Variant::NoTieBreak => (Profile::Small, &[Rule::Version, Rule::Order, Rule::Agreement]),
        Variant::TtlRestarted | Variant::LatenessIgnored => (Profile::Small, &[Rule::Expiry]),
        Variant::RelaysMarked => (Profile::Small, &[Rule::Hops]),
        Variant::WallStamps => (Profile::Small, &[Rule::Seen, Rule::Agreement, Rule::Version]),
        Variant::QueuesUnbounded => (Profile::Evict, &[Rule::Queue]),
        Variant::BudgetIgnored => (Profile::Evict, &[Rule::Capacity]),
        Variant::ValuesTruncated => (Profile::Evict, &[Rule::Whole]),
        Variant::SeenForgotten => (Profile::Small, &[Rule::Seen]),
        Variant::NoTombstones => (Profile::Small, &[Rule::Order, Rule::Acked]),
        Variant::EvictionsForgotten => (Profile::Evict, &[Rule::Order, Rule::Quiet]),
        Variant::NeverOutdated => (Profile::Starts, &[Rule::Agreement, Rule::Order]),
        Variant::TokensForgotten => (Profile::Leases, &[Rule::DeleteWins]),
        Variant::WaitsProlonged => (Profile::Leases, &[Rule::Waits]),
        Variant::ConnectionsConfused | Variant::LeasesScattered => {
            (Profile::Leases, &[Rule::Exclusive])
        }
        Variant::WritesDropped | Variant::RefusalsCounted | Variant::SupersededStored => {
            (Profile::Small, &[Rule::Acked])
        }
        Variant::QueuesDropped | Variant::RetriesDropped => (Profile::Small, &[Rule::Sent]),
        Variant::NothingSent => (Profile::Calm, &[Rule::Sent, Rule::Prompt]),
        Variant::MissesAuthoritative | Variant::NoWarming => {
            (Profile::Small, &[Rule::Authoritative])
        }
        // At the end a node whose misses are authoritative lacks nothing (Agreement).
        Variant::CopiesWithHoles => (Profile::Starts, &[Rule::Authoritative, Rule::Agreement]),
        Variant::NewerErased => (Profile::Starts, &[Rule::Order]),
        Variant::OwnForgotten => (Profile::Small, &[Rule::Own]),
        Variant::WritesHedged => (Profile::Clients, &[Rule::Hedged]),
        Variant::ConditionsIgnored | Variant::ConditionsSpread => {
            (Profile::Conditions, &[Rule::Atomic])
        }
        Variant::BatchKeysDropped => (Profile::Clients, &[Rule::Batch]),
        Variant::ClaimsTrusted => (Profile::Strangers, &[Rule::Strangers, Rule::View]),
        Variant::FeedRowsIgnored | Variant::FeedGapsIgnored | Variant::FillsUnmarked => {
            (Profile::Near, &[Rule::Near])
        }
        // The write may be the client's own.
        Variant::RecentWritesForgotten => (Profile::Near, &[Rule::Near, Rule::Own]),
        Variant::OwnNearWritesIgnored => (Profile::Near, &[Rule::Own]),
        Variant::TicksAlways => (Profile::Small, &[Rule::Progress]),
        Variant::PurgedServed
        | Variant::PurgedRepaired
        | Variant::PurgesForgotten
        | Variant::SoftPurgesHard
        | Variant::HardPurgesSoft => (Profile::Small, &[Rule::Purge]),
        Variant::PurgedCopied => (Profile::Starts, &[Rule::Purge]),
        Variant::FeedPurgesIgnored => (Profile::Near, &[Rule::Purge]),
        Variant::SnapshotsSetAside => (Profile::Stops, &[Rule::Saved]),
        Variant::OffersConfirmed => {
            (Profile::Placement, &[Rule::Agreement, Rule::Authoritative, Rule::Placed])
        }
        Variant::OffersClaimed => (Profile::Placement, &[Rule::Authoritative, Rule::Quiet]),
        Variant::OffersIgnored => (Profile::Placement, &[Rule::Placed, Rule::Quiet]),
        Variant::OwnersApart => (Profile::Placement, &[Rule::Placed, Rule::Agreement]),
        Variant::DiskErasesDropped
        | Variant::DiskAcksEarly
        | Variant::DiskErasesIgnored
        | Variant::DiskMovesIgnored => (Profile::Disk, &[Rule::Disk]),
        Variant::DiskPurgesDropped => (Profile::Disk, &[Rule::Disk, Rule::Purge]),
        Variant::None => (Profile::Small, &[]),
    };
    let first = match variant {
        // Before it, this one is caught for what is copied still.
        Variant::OffersClaimed => 13,
        // Owners ask each other for what they lack, whatever is said of it: it shows seldom.
        Variant::OffersConfirmed => 95,
        _ => 0,
    };
    (profile, first, rules)
}

fn check(variant: Variant) {
    let (profile, first, rules) = expected(variant);
    let purges = rules.contains(&Rule::Purge);
    let whole = Settings { purges, ..Settings::new(profile) };
    let broken = Settings { variant, ..whole };
    let name = variant.as_str();
    for seed in first..first + SEEDS {
        if let Some(violation) = run(seed, &broken).violation {
            assert!(rules.contains(&violation.rule), "{name}: seed {seed} breaks {violation:?}");
            // The same seeds break nothing in the product.
            for seed in first..=seed {
                assert_eq!(run(seed, &whole).violation, None, "seed {seed} without {name}");
            }
            return;
        }
    }
    panic!("{name} is not caught by {rules:?}");
}

#[test]
fn every_defect_is_caught_and_the_product_passes() {
    thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                Variant::BROKEN.into_iter().skip(half).step_by(2).for_each(check);
            });
        }
    });
}
