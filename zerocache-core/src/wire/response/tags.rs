//! The numbers of response kinds and of their fields.

pub mod kind {
    pub const HELLO: u64 = 1;
    pub const PONG: u64 = 2;
    pub const DONE: u64 = 3;
    pub const FOUND: u64 = 4;
    pub const NOT_FOUND: u64 = 5;
    pub const WRITTEN: u64 = 6;
    pub const REPLICATED: u64 = 7;
    pub const REFUSED: u64 = 8;
    pub const DIGESTS: u64 = 9;
    pub const VERSIONS: u64 = 10;
    pub const ITEMS: u64 = 11;
    pub const GOSSIP: u64 = 21;
    pub const LEASE_GRANTED: u64 = 22;
    pub const LEASE_HELD: u64 = 23;
    pub const CHANGES: u64 = 24;
    pub const LOCATED: u64 = 26;
    pub const NOT_MET: u64 = 27;
    pub const TAKEN: u64 = 28;
    pub const CHANGE_ROWS: u64 = 29;
    pub const UNCONFIRMED: u64 = 30;
}

pub mod tag {
    pub const HELLO: u32 = 1;
    pub const INCARNATION: u32 = 2;
    pub const STATE: u32 = 3;
    pub const VIEW: u32 = 4;
    pub const VALUE: u32 = 5;
    pub const METADATA: u32 = 6;
    pub const VERSION: u32 = 7;
    pub const REMAINING_MS: u32 = 8;
    pub const WARMING: u32 = 9;
    pub const STATUS: u32 = 10;
    pub const REPLICAS: u32 = 11;
    pub const REPLICAS_WANTED: u32 = 12;
    pub const RECEIPT: u32 = 13;
    pub const CODE: u32 = 14;
    pub const TEXT: u32 = 15;
    pub const WALL_MS: u32 = 16;
    pub const FROM_SECOND: u32 = 17;
    pub const DIGESTS: u32 = 18;
    pub const SYNC_AGES: u32 = 19;
    pub const LIVED_MS: u32 = 20;
    pub const VERSIONS: u32 = 21;
    pub const COVERED: u32 = 22;
    pub const ITEM: u32 = 23;
    pub const MORE: u32 = 24;
    pub const TICK: u32 = 25;
    pub const LINEAGE: u32 = 26;
    pub const KNOWN: u32 = 27;
    pub const DELETED: u32 = 28;
    pub const PLACED: u32 = 29;
    pub const GOSSIP: u32 = 40;
    pub const NEXT: u32 = 41;
    pub const LOST: u32 = 42;
    pub const CHANGES: u32 = 43;
    pub const VALUE_BYTES_MAX: u32 = 44;
    pub const PURGES: u32 = 45;
    pub const CHANGE_ROWS: u32 = 46;
    pub const NODE_COPIES: u32 = 60;
}
