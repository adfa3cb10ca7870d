//! Counters of runs.

use std::{collections::BTreeMap, fmt};

/// The counters of one run, or the sum of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Simulated time in microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub events: u64,
    /// Processes of nodes started.
    pub processes: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Operations on many keys.
    pub batches: u64,
    /// Purges that clients began.
    pub purges: u64,
    /// Second requests beside a first one that was late.
    pub hedged: u64,
    /// Reads that the near cache of a client answered.
    pub near_hits: u64,
    /// Reads that a node answered with a value.
    pub hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Writes that were answered.
    pub written: u64,
    /// Writes without an answer.
    pub unknown: u64,
    /// Operations for which no node was found.
    pub unreachable: u64,
    /// Operations that were refused as invalid.
    pub invalid: u64,
    /// Leases granted to clients.
    pub leases: u64,
    /// Values that they got instead.
    pub lease_found: u64,
    /// Lease requests that ended because another caller held the lease for too long.
    pub lease_busy: u64,
    /// Lease requests without a node to ask.
    pub lease_unavailable: u64,
    /// Conditional writes that were met.
    pub conditions_met: u64,
    /// Conditional writes that were not met.
    pub conditions_not_met: u64,
    /// Conditional writes that no node judged.
    pub conditions_refused: u64,
    /// Values that were computed and written.
    pub filled: u64,
    /// Records sent between nodes.
    pub replicated: u64,
    /// Values that nodes fetched from others.
    pub fetched: u64,
    /// Records for peers that nodes gave up.
    pub dropped: u64,
    /// Records that nodes refused.
    pub refused: u64,
    /// Members taken out of a rotation.
    pub removals: u64,
    /// Calls made.
    pub calls: u64,
    /// Messages on connections.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Processes that found again what they knew.
    pub restored: u64,
    /// Nodes that were outdated.
    pub outdated: u64,
    /// Nodes that put their clock right.
    pub clocks_moved: u64,
    /// Values that nodes were to read from disk.
    pub disk_loads: u64,
    /// Entries that nodes found on their disks when they started.
    pub disk_recovered: u64,
    /// Acknowledgements that waited for a disk.
    pub disk_held: u64,
    /// Of these, those that waited for as long as they may.
    pub disk_unwritten: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Segments lost and sent again.
    pub lost: u64,
    /// Connections made.
    pub connections: u64,
    /// Ticks of nodes.
    pub ticks: u64,
    /// The most that a request was late, in microseconds.
    pub late_us_max: u64,
    /// The most events of one process in a second.
    pub busiest_events: u64,
    /// The longest time after the faults until nodes met that never had, in microseconds.
    pub first_contact_us_max: u64,
    /// The longest time after the faults in which the nodes of each region agreed, in microseconds.
    pub agreed_in_regions_us_max: u64,
    /// The longest time in which all agreed.
    pub agreed_us_max: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds what another run did.
    #[expect(clippy::too_many_lines, reason = "one line for each counter")]
    pub fn add(&mut self, other: &Self) {
        let Self {
            simulated_us,
            events,
            processes,
            operations,
            batches,
            purges,
            hedged,
            near_hits,
            hits,
            misses,
            written,
            unknown,
            unreachable,
            invalid,
            leases,
            lease_found,
            lease_busy,
            lease_unavailable,
            conditions_met,
            conditions_not_met,
            conditions_refused,
            filled,
            replicated,
            fetched,
            dropped,
            refused,
            removals,
            calls,
            messages,
            bytes,
            restored,
            outdated,
            clocks_moved,
            disk_loads,
            disk_recovered,
            disk_held,
            disk_unwritten,
            datagrams_sent,
            datagrams,
            lost,
            connections,
            ticks,
            late_us_max,
            busiest_events,
            agreed_in_regions_us_max,
            agreed_us_max,
            first_contact_us_max,
            faults,
        } = other;
        self.simulated_us += simulated_us;
        self.events += events;
        self.processes += processes;
        self.operations += operations;
        self.batches += batches;
        self.purges += purges;
        self.hedged += hedged;
        self.near_hits += near_hits;
        self.hits += hits;
        self.misses += misses;
        self.written += written;
        self.unknown += unknown;
        self.unreachable += unreachable;
        self.invalid += invalid;
        self.leases += leases;
        self.lease_found += lease_found;
        self.lease_busy += lease_busy;
        self.lease_unavailable += lease_unavailable;
        self.conditions_met += conditions_met;
        self.conditions_not_met += conditions_not_met;
        self.conditions_refused += conditions_refused;
        self.filled += filled;
        self.replicated += replicated;
        self.fetched += fetched;
        self.dropped += dropped;
        self.refused += refused;
        self.removals += removals;
        self.calls += calls;
        self.messages += messages;
        self.bytes += bytes;
        self.restored += restored;
        self.outdated += outdated;
        self.clocks_moved += clocks_moved;
        self.disk_loads += disk_loads;
        self.disk_recovered += disk_recovered;
        self.disk_held += disk_held;
        self.disk_unwritten += disk_unwritten;
        self.datagrams_sent += datagrams_sent;
        self.datagrams += datagrams;
        self.lost += lost;
        self.connections += connections;
        self.ticks += ticks;
        self.late_us_max = self.late_us_max.max(*late_us_max);
        self.busiest_events = self.busiest_events.max(*busiest_events);
        self.agreed_in_regions_us_max =
            self.agreed_in_regions_us_max.max(*agreed_in_regions_us_max);
        self.agreed_us_max = self.agreed_us_max.max(*agreed_us_max);
        self.first_contact_us_max = self.first_contact_us_max.max(*first_contact_us_max);
        for (kind, count) in faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Counts {
    #[expect(clippy::too_many_lines, reason = "one line for each group of counters")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3_600e6;
        writeln!(
            f,
            "simulated    {hours:.2} h, {} events, at most {} of a process in a second",
            self.events, self.busiest_events
        )?;
        writeln!(f, "processes    {} nodes, {} ticks", self.processes, self.ticks)?;
        writeln!(
            f,
            "operations   {}: {} on many keys, {} purges, {} hedged; {} near hits, {} hits, {} misses, {} written, {} unknown, {} \
             unreachable, {} invalid",
            self.operations,
            self.batches,
            self.purges,
            self.hedged,
            self.near_hits,
            self.hits,
            self.misses,
            self.written,
            self.unknown,
            self.unreachable,
            self.invalid
        )?;
        writeln!(
            f,
            "leases       {} granted, {} written; {} found, {} busy, {} without a node",
            self.leases, self.filled, self.lease_found, self.lease_busy, self.lease_unavailable
        )?;
        writeln!(
            f,
            "conditions   {} met, {} not met, {} not judged",
            self.conditions_met, self.conditions_not_met, self.conditions_refused
        )?;
        writeln!(
            f,
            "replication  {} records sent, {} fetched, {} abandoned, {} refused; {} nodes restored, {} outdated, {} \
             clocks moved; {} removals of members",
            self.replicated,
            self.fetched,
            self.dropped,
            self.refused,
            self.restored,
            self.outdated,
            self.clocks_moved,
            self.removals
        )?;
        writeln!(
            f,
            "disks        {} values read, {} entries recovered, {} acknowledgements held, {} of them unwritten",
            self.disk_loads, self.disk_recovered, self.disk_held, self.disk_unwritten
        )?;
        writeln!(
            f,
            "network      {} calls, {} messages, {} bytes, {} of {} datagrams, {} lost, {} connections; \
             latest {} ms",
            self.calls,
            self.messages,
            self.bytes,
            self.datagrams,
            self.datagrams_sent,
            self.lost,
            self.connections,
            self.late_us_max / 1_000
        )?;
        writeln!(
            f,
            "agreement    within {:.1} s in regions, {:.1} s across, first contact within {:.1} s",
            self.agreed_in_regions_us_max as f64 / 1e6,
            self.agreed_us_max as f64 / 1e6,
            self.first_contact_us_max as f64 / 1e6
        )?;
        let faults: Vec<_> =
            self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "faults       {}", faults.join(", "))
    }
}
