//! Who is dialled, how often, and whose place is whose.

use alloc::format;

use super::{
    sources::{CALLER_BOUNDS, DISCOVERY_BOUNDS},
    *,
};
use crate::version::Incarnation;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn address(n: u32) -> SocketAddr {
    format!("127.0.{}.{}:1", n / 250, n % 250 + 1).parse().unwrap()
}

#[test]
fn handshakes_in_flight_are_bounded() {
    let mut candidates = Candidates::default();
    for n in 0..1_000 {
        candidates.add(address(n), AddressSource::Discovery, at(0));
    }
    assert_eq!(candidates.take_due(at(0)).len(), DISCOVERY_BOUNDS.in_flight_max);
    assert_eq!((candidates.take_due(at(1)).len(), candidates.next_dial()), (0, None));
    candidates.answered(address(0));
    assert_eq!(candidates.take_due(at(2)).len(), 1);
}

/// Dials for some seconds, where only `alive` responds. Returns which address was dialled when.
fn dialled(
    candidates: &mut Candidates,
    ms: u64,
    alive: &[SocketAddr],
    mut tell: impl FnMut(&mut Candidates, Instant),
) -> Vec<(u64, SocketAddr)> {
    let mut all = Vec::new();
    for ms in 0..ms {
        tell(candidates, at(ms));
        loop {
            let taken = candidates.take_due(at(ms));
            let next = candidates.next_dial();
            for address in &taken {
                all.push((ms, *address));
                match alive.contains(address) {
                    true => candidates.answered(*address),
                    false => candidates.failed(*address, at(ms)),
                }
            }
            if taken.is_empty() {
                assert!(next.is_none_or(|next| next > at(ms)), "due at {next:?}, and not dialled");
                break;
            }
        }
    }
    all
}

#[test]
fn addresses_of_one_caller_take_few_dials_and_displace_no_other() {
    let mut candidates = Candidates::default();
    let (mut named, seed, honest) = (0, address(60_000), address(60_001));
    let tried = dialled(&mut candidates, 20_000, &[seed, honest], |candidates, now| {
        // Sixteen new addresses each millisecond on one connection, on one of fifty others, and over HTTP.
        for n in 0..48 {
            let source = match n {
                0..16 => AddressSource::Caller(1),
                16..32 => AddressSource::Caller(2 + now.as_millis() % 50),
                _ => AddressSource::ANONYMOUS,
            };
            candidates.retry_soon(address(named), source, now);
            named = (named + 1) % 50_000;
        }
        if now == at(10_000) {
            candidates.add(seed, AddressSource::Discovery, now);
            candidates.add(address(60_002), AddressSource::Node(Incarnation(9)), now);
            candidates.retry_soon(honest, AddressSource::Caller(1_000), now);
        }
    });
    assert!(tried.len() < 128 + 32 * 20 + 64, "{} dials", tried.len());
    let at_once = |address| tried.contains(&(10_000, address));
    assert!(at_once(seed) && at_once(address(60_002)));
    let met = tried.iter().find(|(_, address)| *address == honest);
    assert!(met.is_some_and(|(ms, _)| *ms < 11_000), "{met:?}");
    assert!(candidates.refused() > 500_000, "{}", candidates.refused());
    assert!(candidates.waiting.len() <= CALLER_BOUNDS.addresses_max + 1);
}

#[test]
fn nodes_that_start_at_once_are_met_at_once() {
    let mut candidates = Candidates::default();
    let all: Vec<_> = (0..500).map(address).collect();
    for (n, address) in all.iter().enumerate() {
        candidates.add(*address, AddressSource::Caller(n as u64), at(0));
    }
    let tried = dialled(&mut candidates, 100, &all, |_, _| {});
    assert_eq!(tried.len(), 500);
}

#[test]
fn more_trusted_source_counts() {
    let mut candidates = Candidates::default();
    candidates.add(address(1), AddressSource::Caller(1), at(0));
    candidates.take_due(at(0));
    candidates.add(address(1), AddressSource::Discovery, at(0));
    candidates.add(address(1), AddressSource::Caller(1), at(0));
    let counts = |c: &Candidates| c.uses.map(|used| (used.addresses, used.in_flight));
    assert_eq!(counts(&candidates), [(0, 0), (0, 0), (1, 1)]);
    candidates.failed(address(1), at(1));
    assert_eq!(counts(&candidates), [(0, 0), (0, 0), (1, 0)]);
    candidates.answered(address(1));
    assert_eq!(counts(&candidates), [(0, 0); 3]);
}

#[test]
fn addresses_of_a_gone_source_are_forgotten() {
    let mut candidates = Candidates::default();
    for n in 0..40 {
        candidates.add(address(n), AddressSource::Caller(1), at(0));
        candidates.add(address(100 + n), AddressSource::Caller(2), at(0));
    }
    let under_way = candidates.take_due(at(0)).len();
    candidates.forget(AddressSource::Caller(1));
    assert_eq!((under_way, candidates.waiting.len(), candidates.next_dial()), (32, 32, None));
    for n in 0..200 {
        candidates.failed(address(n), at(1));
    }
    assert_eq!(candidates.uses[0].in_flight, 0);
}

#[test]
fn impossible_addresses_are_refused() {
    let mut candidates = Candidates::default();
    for nowhere in ["10.0.0.1:0", "0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1"] {
        candidates.add(nowhere.parse().unwrap(), AddressSource::Caller(1), at(0));
    }
    assert_eq!((candidates.take_due(at(0)).len(), candidates.refused()), (0, 5));
}

#[test]
fn start_does_not_wait_for_a_caller_that_keeps_naming_addresses() {
    let mut candidates = Candidates::default();
    for ms in 0..10_000 {
        candidates.add(address(ms), AddressSource::Caller(1), at(u64::from(ms)));
        for address in candidates.take_due(at(u64::from(ms))) {
            candidates.failed(address, at(u64::from(ms)));
        }
    }
    assert!(!candidates.has_fresh());
    candidates.add(address(20_000), AddressSource::Node(Incarnation(1)), at(10_000));
    assert!(candidates.has_fresh());
}

#[test]
fn dead_addresses_do_not_starve_a_live_one() {
    let mut candidates = Candidates::default();
    for n in 0..500 {
        candidates.add(address(n), AddressSource::Discovery, at(0));
    }
    // Every dead address takes a second to fail; the last one in order is the live one.
    for second in 0..10 {
        let taken = candidates.take_due(at(second * 1_000));
        if taken.contains(&address(499)) {
            return;
        }
        for dead in taken {
            candidates.failed(dead, at(second * 1_000 + 999));
        }
    }
    panic!("not dialled within ten seconds");
}

#[test]
fn repeated_calls_do_not_defeat_the_backoff() {
    let mut candidates = Candidates::default();
    candidates.add(address(1), AddressSource::Discovery, at(0));
    let mut dials = 0;
    for ms in 0..60_000 {
        candidates.retry_soon(address(1), AddressSource::Caller(1), at(ms));
        for address in candidates.take_due(at(ms)) {
            dials += 1;
            candidates.failed(address, at(ms));
        }
    }
    assert!((50..70).contains(&dials), "{dials} dials in a minute");
}

#[test]
fn who_denies_is_dialled_seldom_and_at_once_with_other_credentials() {
    let dials = |candidates: &mut Candidates, from_s: u64| {
        let seconds = (from_s..from_s + 60).map(|second| at(second * 1_000));
        let due = seconds.filter(|now| {
            let taken = candidates.take_due(*now);
            taken.iter().for_each(|address| candidates.denied(*address, *now));
            !taken.is_empty()
        });
        due.count()
    };
    let mut candidates = Candidates::default();
    candidates.add(address(1), AddressSource::Discovery, at(0));
    let count = dials(&mut candidates, 0);
    assert!((12..18).contains(&count), "{count} dials in a minute");
    let now = at(60_001);
    candidates.take_due(now).iter().for_each(|address| candidates.denied(*address, now));
    assert!(candidates.take_due(at(60_002)).is_empty());
    candidates.retry_all(at(60_002));
    assert_eq!(candidates.take_due(at(60_002)), [address(1)]);
}
