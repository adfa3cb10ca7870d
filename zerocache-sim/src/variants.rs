//! Clusters that are broken on purpose: what shows that the checker can fail.

use std::str::FromStr;

use zerocache_core::{
    client::ClientVariant,
    store::{Capacity, StoreVariant},
};

/// The deliberate defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Nothing: the product.
    #[default]
    None,
    /// Versions lose their writer in transit, so that two writes can have the same one.
    NoTieBreak,
    /// A lifetime begins again at each replica.
    TtlRestarted,
    /// The time of a message in a buffer is not subtracted.
    LatenessIgnored,
    /// Relays mark forwarded records to be forwarded again.
    RelaysMarked,
    /// Stamps follow the wall clock of the machine.
    WallStamps,
    /// Queues for peers have no bound.
    QueuesUnbounded,
    /// A store takes four times its budget.
    BudgetIgnored,
    /// Values are truncated in transit.
    ValuesTruncated,
    /// Clients do not send the highest stamp that they have seen.
    SeenForgotten,
    /// Nothing is remembered of what is gone.
    NoTombstones,
    /// Nothing is remembered of what was evicted, so that others offer it again.
    EvictionsForgotten,
    /// No node detects that it is outdated.
    NeverOutdated,
    /// Values computed under a lease are written without its token.
    TokensForgotten,
    /// Nodes let others wait for a lease for longer than these want to.
    WaitsProlonged,
    /// Nodes take the end of one connection for that of another one.
    ConnectionsConfused,
    /// Each client asks a node of its own for a lease.
    LeasesScattered,
    /// Of a hundred writes three are acknowledged and not stored.
    WritesDropped,
    /// Nodes take refusals of their peers for receipts.
    RefusalsCounted,
    /// A write that a newer one has beaten is called stored.
    SupersededStored,
    /// A node that shuts down drops its queues.
    QueuesDropped,
    /// Failed batches are not retried.
    RetriesDropped,
    /// Writes are not sent to peers; repair brings them.
    NothingSent,
    /// Every miss claims to be authoritative.
    MissesAuthoritative,
    /// A process does not notice that it was suspended.
    NoWarming,
    /// A node that starts copies a part of what there is.
    CopiesWithHoles,
    /// A node that is outdated gives up what is newer than the retention too.
    NewerErased,
    /// Clients do not remember which node took their writes.
    OwnForgotten,
    /// Nodes want to be ticked all the time.
    TicksAlways,
    /// Clients hedge writes.
    WritesHedged,
    /// Nodes put values without asking for the condition.
    ConditionsIgnored,
    /// Clients send conditional writes of a key to any node, and not to the same one.
    ConditionsSpread,
    /// Clients drop the keys of a batch that the first node does not complete.
    BatchKeysDropped,
    /// Nodes take the name that a caller gives for proven.
    ClaimsTrusted,
    /// Near caches ignore the changes that nodes report.
    FeedRowsIgnored,
    /// Near caches keep what they have when changes may have been missed.
    FeedGapsIgnored,
    /// Near caches take what was read before a gap for read after it.
    FillsUnmarked,
    /// Near caches keep values older than a change that was reported a moment before.
    RecentWritesForgotten,
    /// Near caches keep what their own process overwrites.
    OwnNearWritesIgnored,
    /// Reads serve what purges ended, until the sweep has dropped it.
    PurgedServed,
    /// Nodes give what purges ended to those that copy.
    PurgedCopied,
    /// Nodes give what purges ended in repair.
    PurgedRepaired,
    /// Purges are forgotten after the next sweep, before the retention.
    PurgesForgotten,
    /// Soft purges end entries as hard ones do.
    SoftPurgesHard,
    /// Hard purges end the fresh time only.
    HardPurgesSoft,
    /// Near caches ignore the purges that nodes report.
    FeedPurgesIgnored,
    /// A node leaves its snapshot aside if another node is in sync when it starts.
    SnapshotsSetAside,
    /// Nodes take each offer for taken, and drop what others own before these have it.
    OffersConfirmed,
    /// Owners never get what is offered to them.
    OffersIgnored,
    /// Owners never get what is offered to them, and nodes say that they have offered everything.
    OffersClaimed,
    /// Each node chooses owners by weights of its own.
    OwnersApart,
    /// Nothing is erased on disk that is deleted or replaced.
    DiskErasesDropped,
    /// Changes are acknowledged before what they erase is written.
    DiskAcksEarly,
    /// A process that starts ignores the erases on its disk.
    DiskErasesIgnored,
    /// What has been copied on disk is looked for at its former place.
    DiskMovesIgnored,
    /// Purges are not written to disk.
    DiskPurgesDropped,
}

impl Variant {
    /// All broken variants.
    pub const BROKEN: [Self; 55] = [
        Self::NoTieBreak,
        Self::TtlRestarted,
        Self::LatenessIgnored,
        Self::RelaysMarked,
        Self::WallStamps,
        Self::QueuesUnbounded,
        Self::BudgetIgnored,
        Self::ValuesTruncated,
        Self::SeenForgotten,
        Self::NoTombstones,
        Self::EvictionsForgotten,
        Self::NeverOutdated,
        Self::TokensForgotten,
        Self::WaitsProlonged,
        Self::ConnectionsConfused,
        Self::LeasesScattered,
        Self::WritesDropped,
        Self::RefusalsCounted,
        Self::SupersededStored,
        Self::QueuesDropped,
        Self::RetriesDropped,
        Self::NothingSent,
        Self::MissesAuthoritative,
        Self::NoWarming,
        Self::CopiesWithHoles,
        Self::NewerErased,
        Self::OwnForgotten,
        Self::TicksAlways,
        Self::WritesHedged,
        Self::ConditionsIgnored,
        Self::ConditionsSpread,
        Self::BatchKeysDropped,
        Self::ClaimsTrusted,
        Self::FeedRowsIgnored,
        Self::FeedGapsIgnored,
        Self::FillsUnmarked,
        Self::RecentWritesForgotten,
        Self::OwnNearWritesIgnored,
        Self::PurgedServed,
        Self::PurgedCopied,
        Self::PurgedRepaired,
        Self::PurgesForgotten,
        Self::SoftPurgesHard,
        Self::HardPurgesSoft,
        Self::FeedPurgesIgnored,
        Self::SnapshotsSetAside,
        Self::OffersConfirmed,
        Self::OffersIgnored,
        Self::OffersClaimed,
        Self::OwnersApart,
        Self::DiskErasesDropped,
        Self::DiskAcksEarly,
        Self::DiskErasesIgnored,
        Self::DiskMovesIgnored,
        Self::DiskPurgesDropped,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoTieBreak => "no-tie-break",
            Self::TtlRestarted => "ttl-restarted",
            Self::LatenessIgnored => "lateness-ignored",
            Self::RelaysMarked => "relays-marked",
            Self::WallStamps => "wall-stamps",
            Self::QueuesUnbounded => "queues-unbounded",
            Self::BudgetIgnored => "budget-ignored",
            Self::ValuesTruncated => "values-truncated",
            Self::SeenForgotten => "seen-forgotten",
            Self::NoTombstones => "no-tombstones",
            Self::EvictionsForgotten => "evictions-forgotten",
            Self::NeverOutdated => "never-outdated",
            Self::TokensForgotten => "tokens-forgotten",
            Self::WaitsProlonged => "waits-prolonged",
            Self::ConnectionsConfused => "connections-confused",
            Self::LeasesScattered => "leases-scattered",
            Self::WritesDropped => "writes-dropped",
            Self::RefusalsCounted => "refusals-counted",
            Self::SupersededStored => "superseded-stored",
            Self::QueuesDropped => "queues-dropped",
            Self::RetriesDropped => "retries-dropped",
            Self::NothingSent => "nothing-sent",
            Self::MissesAuthoritative => "misses-authoritative",
            Self::NoWarming => "no-warming",
            Self::CopiesWithHoles => "copies-with-holes",
            Self::NewerErased => "newer-erased",
            Self::OwnForgotten => "own-forgotten",
            Self::TicksAlways => "ticks-always",
            Self::WritesHedged => "writes-hedged",
            Self::ConditionsIgnored => "conditions-ignored",
            Self::ConditionsSpread => "conditions-spread",
            Self::BatchKeysDropped => "batch-keys-dropped",
            Self::ClaimsTrusted => "claims-trusted",
            Self::FeedRowsIgnored => "feed-rows-ignored",
            Self::FeedGapsIgnored => "feed-gaps-ignored",
            Self::FillsUnmarked => "fills-unmarked",
            Self::RecentWritesForgotten => "recent-writes-forgotten",
            Self::OwnNearWritesIgnored => "own-near-writes-ignored",
            Self::PurgedServed => "purged-served",
            Self::PurgedCopied => "purged-copied",
            Self::PurgedRepaired => "purged-repaired",
            Self::PurgesForgotten => "purges-forgotten",
            Self::SoftPurgesHard => "soft-purges-hard",
            Self::HardPurgesSoft => "hard-purges-soft",
            Self::FeedPurgesIgnored => "feed-purges-ignored",
            Self::SnapshotsSetAside => "snapshots-set-aside",
            Self::OffersConfirmed => "offers-confirmed",
            Self::OffersIgnored => "offers-ignored",
            Self::OffersClaimed => "offers-claimed",
            Self::OwnersApart => "owners-apart",
            Self::DiskErasesDropped => "disk-erases-dropped",
            Self::DiskAcksEarly => "disk-acks-early",
            Self::DiskErasesIgnored => "disk-erases-ignored",
            Self::DiskMovesIgnored => "disk-moves-ignored",
            Self::DiskPurgesDropped => "disk-purges-dropped",
        }
    }

    /// Returns the defect of the store, or of its node's use of it.
    pub(crate) fn of_store(self) -> Option<StoreVariant> {
        match self {
            Self::NoTombstones => Some(StoreVariant::NoTombstones),
            Self::EvictionsForgotten => Some(StoreVariant::EvictionsForgotten),
            Self::NeverOutdated => Some(StoreVariant::NeverOutdated),
            Self::WritesDropped => Some(StoreVariant::WritesDropped),
            Self::QueuesDropped => Some(StoreVariant::QueuesDropped),
            Self::RetriesDropped => Some(StoreVariant::RetriesDropped),
            Self::NothingSent => Some(StoreVariant::NothingSent),
            Self::NewerErased => Some(StoreVariant::NewerErased),
            Self::PurgedServed => Some(StoreVariant::PurgedServed),
            Self::PurgedCopied => Some(StoreVariant::PurgedCopied),
            Self::PurgedRepaired => Some(StoreVariant::PurgedRepaired),
            Self::PurgesForgotten => Some(StoreVariant::PurgesForgotten),
            Self::SoftPurgesHard => Some(StoreVariant::SoftPurgesHard),
            Self::HardPurgesSoft => Some(StoreVariant::HardPurgesSoft),
            Self::DiskErasesDropped => Some(StoreVariant::DiskErasesDropped),
            Self::DiskAcksEarly => Some(StoreVariant::DiskAcksEarly),
            Self::DiskErasesIgnored => Some(StoreVariant::DiskErasesIgnored),
            Self::DiskMovesIgnored => Some(StoreVariant::DiskMovesIgnored),
            Self::DiskPurgesDropped => Some(StoreVariant::DiskPurgesDropped),
            _ => None,
        }
    }

    /// The broken rule of the clients.
    pub(crate) fn of_client(self) -> Option<ClientVariant> {
        match self {
            Self::OwnForgotten => Some(ClientVariant::OwnWritesForgotten),
            Self::WritesHedged => Some(ClientVariant::WritesHedged),
            Self::ConditionsSpread => Some(ClientVariant::ConditionsSpread),
            Self::BatchKeysDropped => Some(ClientVariant::BatchKeysDropped),
            Self::FeedRowsIgnored => Some(ClientVariant::FeedRowsIgnored),
            Self::FeedGapsIgnored => Some(ClientVariant::FeedGapsIgnored),
            Self::FillsUnmarked => Some(ClientVariant::FillsUnmarked),
            Self::RecentWritesForgotten => Some(ClientVariant::RecentWritesForgotten),
            Self::OwnNearWritesIgnored => Some(ClientVariant::OwnNearWritesIgnored),
            Self::FeedPurgesIgnored => Some(ClientVariant::FeedPurgesIgnored),
            _ => None,
        }
    }

    pub(crate) fn ignores_conditions(self) -> bool {
        self == Self::ConditionsIgnored
    }

    pub(crate) fn follows_wall_clock(self) -> bool {
        self == Self::WallStamps
    }

    pub(crate) fn ignores_lateness(self) -> bool {
        self == Self::LatenessIgnored
    }

    pub(crate) fn marks_relays(self) -> bool {
        self == Self::RelaysMarked
    }

    pub(crate) fn restarts_lifetimes(self) -> bool {
        self == Self::TtlRestarted
    }

    pub(crate) fn truncates_values(self) -> bool {
        self == Self::ValuesTruncated
    }

    pub(crate) fn forgets_incarnations(self) -> bool {
        self == Self::NoTieBreak
    }

    pub(crate) fn forgets_seen(self) -> bool {
        self == Self::SeenForgotten
    }

    pub(crate) fn forgets_tokens(self) -> bool {
        self == Self::TokensForgotten
    }

    pub(crate) fn prolongs_waits(self) -> bool {
        self == Self::WaitsProlonged
    }

    pub(crate) fn confuses_connections(self) -> bool {
        self == Self::ConnectionsConfused
    }

    pub(crate) fn scatters_leases(self) -> bool {
        self == Self::LeasesScattered
    }

    pub(crate) fn counts_refusals(self) -> bool {
        self == Self::RefusalsCounted
    }

    pub(crate) fn forgets_newer(self) -> bool {
        self == Self::SupersededStored
    }

    pub(crate) fn claims_all_misses(self) -> bool {
        self == Self::MissesAuthoritative
    }

    pub(crate) fn trusts_claims(self) -> bool {
        self == Self::ClaimsTrusted
    }

    pub(crate) fn sets_snapshots_aside(self) -> bool {
        self == Self::SnapshotsSetAside
    }

    pub(crate) fn hides_pauses(self) -> bool {
        self == Self::NoWarming
    }

    pub(crate) fn leaves_holes(self) -> bool {
        self == Self::CopiesWithHoles
    }

    pub(crate) fn loses_adopted(self) -> bool {
        matches!(self, Self::OffersIgnored | Self::OffersClaimed)
    }

    pub(crate) fn ticks_always(self) -> bool {
        self == Self::TicksAlways
    }

    pub(crate) fn outbox_bytes_max(self, planned: usize) -> usize {
        if self == Self::QueuesUnbounded { usize::MAX } else { planned }
    }

    pub(crate) fn capacity(self, planned: Capacity) -> Capacity {
        if self == Self::BudgetIgnored {
            let Capacity { entries_max, bytes_max } = planned;
            Capacity {
                entries_max: entries_max.saturating_mul(4),
                bytes_max: bytes_max.saturating_mul(4),
            }
        } else {
            planned
        }
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::BROKEN.into_iter().chain([Self::None]);
        all.find(|variant| variant.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::BROKEN.iter().map(|variant| variant.as_str()).collect();
            format!("\"{text}\" is no variant; use one of {}", names.join(", "))
        })
    }
}
