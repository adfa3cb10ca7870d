//! The virtual network: latency, loss and partitions.

use crate::{faults::Area, random::Random};

/// A lost segment of a connection is sent again after two round trips and this, in microseconds.
const PROBE_US: u64 = 10_000;

/// If that is lost too, after this long, doubled each time.
const RETRANSMIT_US: u64 = 200_000;

/// A segment is lost at most so often; then the connection would be given up.
const LOSSES_MAX: u32 = 8;

/// The jitter of a latency without faults, as a fraction of it (1/8).
const JITTER_FRACTION: u64 = 8;

/// A disturbance of the messages of an area.
#[derive(Clone, Debug)]
struct Disturbance {
    id: u64,
    from: Vec<bool>,
    to: Vec<bool>,
    one_way: bool,
    impact: Impact,
}

#[derive(Clone, Copy, Debug)]
enum Impact {
    Partition,
    Impairment { loss_permille: u64, delay_us: u64, jitter_us: u64 },
}

impl Disturbance {
    fn covers(&self, from: u32, to: u32) -> bool {
        let (from, to) = (from as usize, to as usize);
        (self.from[from] && self.to[to]) || (!self.one_way && self.from[to] && self.to[from])
    }
}

/// The network between all hosts.
#[derive(Debug)]
pub struct Network {
    regions: Vec<usize>,
    distance_us: Vec<Vec<u64>>,
    duplicate_permille: u64,
    disturbances: Vec<Disturbance>,
}

impl Network {
    /// A network between hosts that stand in `regions`.
    #[must_use]
    pub fn new(regions: Vec<usize>, distance_us: Vec<Vec<u64>>, duplicate_permille: u64) -> Self {
        Self { regions, distance_us, duplicate_permille, disturbances: Vec::new() }
    }

    /// Lets nothing pass in `area` from now on, until `id` is over.
    pub fn partition(&mut self, id: u64, area: &Area) {
        self.disturb(id, area, Impact::Partition);
    }

    /// Makes journeys in `area` longer and loses packets, until `id` is over.
    pub fn impair(
        &mut self,
        id: u64,
        area: &Area,
        loss_permille: u64,
        (delay_us, jitter_us): (u64, u64),
    ) {
        self.disturb(id, area, Impact::Impairment { loss_permille, delay_us, jitter_us });
    }

    fn disturb(&mut self, id: u64, area: &Area, impact: Impact) {
        let mask = |hosts: &[u32]| {
            let mut mask = vec![false; self.regions.len()];
            hosts.iter().for_each(|host| mask[*host as usize] = true);
            mask
        };
        let (from, to) = (mask(&area.from), mask(&area.to));
        self.disturbances.push(Disturbance { id, from, to, one_way: area.one_way, impact });
    }

    /// Ends a disturbance.
    pub fn restore(&mut self, id: u64) {
        self.disturbances.retain(|disturbance| disturbance.id != id);
    }

    /// Returns whether packets pass from one host to another.
    #[must_use]
    pub fn is_open(&self, from: u32, to: u32) -> bool {
        let cut = |d: &Disturbance| matches!(d.impact, Impact::Partition) && d.covers(from, to);
        !self.disturbances.iter().any(cut)
    }

    /// Draws the latency of one packet in microseconds, if it is not lost.
    #[must_use]
    pub fn latency_us(&self, random: &mut Random, from: u32, to: u32) -> u64 {
        let (here, there) = (self.regions[from as usize], self.regions[to as usize]);
        let base_us = self.distance_us[here][there];
        let mut latency_us = base_us + random.below(base_us / JITTER_FRACTION + 1);
        for disturbance in &self.disturbances {
            if let Impact::Impairment { delay_us, jitter_us, .. } = disturbance.impact
                && disturbance.covers(from, to)
            {
                latency_us += delay_us + random.below(jitter_us + 1);
            }
        }
        latency_us
    }

    /// Draws whether one packet is lost.
    pub fn loses(&self, random: &mut Random, from: u32, to: u32) -> bool {
        self.disturbances.iter().any(|disturbance| match disturbance.impact {
            Impact::Impairment { loss_permille, .. } if disturbance.covers(from, to) => {
                random.chance(loss_permille)
            }
            _ => false,
        })
    }

    /// Draws the latency of a segment of a connection in microseconds, including retransmissions,
    /// and their number.
    pub fn segment_latency_us(&self, random: &mut Random, from: u32, to: u32) -> (u64, u32) {
        let mut losses = 0;
        while losses < LOSSES_MAX && self.loses(random, from, to) {
            losses += 1;
        }
        let latency_us = self.latency_us(random, from, to);
        let waited_us = match losses {
            0 => 0,
            1 => 4 * latency_us + PROBE_US,
            more => 4 * latency_us + PROBE_US + RETRANSMIT_US * ((1 << (more - 1)) - 1),
        };
        (latency_us + waited_us, losses)
    }

    /// The journeys of a datagram in microseconds: none if it is lost, two if it is duplicated.
    pub fn datagram_latencies_us(&self, random: &mut Random, from: u32, to: u32) -> Vec<u64> {
        if !self.is_open(from, to) || self.loses(random, from, to) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(self.duplicate_permille));
        (0..copies).map(|_| self.latency_us(random, from, to)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(vec![0, 0, 1], vec![vec![100, 20_000], vec![20_000, 100]], 500)
    }

    #[test]
    fn one_way_partition_blocks_one_direction() {
        let mut network = network();
        network.partition(1, &Area { from: vec![0], to: vec![1, 2], one_way: true });
        network.partition(2, &Area { from: vec![1], to: vec![2], one_way: false });
        let open = |a, b| network.is_open(a, b);
        assert_eq!([open(0, 1), open(1, 0), open(0, 2)], [false, true, false]);
        assert_eq!([open(1, 2), open(2, 1), open(2, 0)], [false, false, true]);
        network.restore(2);
        assert!(network.is_open(2, 1));
    }

    #[test]
    fn loss_delays_segments_and_drops_datagrams() {
        let mut network = network();
        let mut random = Random::new(3);
        let area = Area { from: vec![0], to: vec![2], one_way: false };
        network.impair(1, &area, 300, (5_000, 0));
        let (mut lost, mut twice, mut late) = (0, 0, 0);
        for _ in 0..1_000 {
            let copies = network.datagram_latencies_us(&mut random, 2, 0);
            lost += u32::from(copies.is_empty());
            twice += u32::from(copies.len() == 2);
            let (us, losses) = network.segment_latency_us(&mut random, 0, 2);
            assert!(us >= 25_000);
            late += u32::from(losses > 0);
            assert_eq!(network.segment_latency_us(&mut random, 0, 1).1, 0);
        }
        assert!((200..400).contains(&lost) && (200..500).contains(&twice), "{lost} {twice}");
        assert!((200..400).contains(&late), "{late}");
    }
}
