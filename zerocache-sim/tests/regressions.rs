//! Seeds that once showed a fault, replayed on every run.

use zerocache_sim::{Profile, Settings, replay, run};

#[test]
fn seeds_that_showed_a_fault_pass() {
    let mut count = 0;
    for line in include_str!("../seeds.txt").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((profile, seed)) = line.split_once(' ') else {
            assert!(line.is_empty(), "{line:?} is no profile and seed");
            continue;
        };
        let purges = seed.ends_with(" --purges");
        let settings = Settings { purges, ..Settings::new(profile.parse::<Profile>().unwrap()) };
        let seed = seed.trim_end_matches(" --purges").trim().parse().unwrap();
        let violation = run(seed, &settings).violation;
        assert_eq!(violation, None, "to replay it: {}", replay(seed, &settings));
        count += 1;
    }
    assert!(count > 0);
}
