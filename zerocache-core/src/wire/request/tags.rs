//! The numbers of request kinds and of their fields.

pub mod kind {
    pub const HELLO: u64 = 1;
    pub const PING: u64 = 2;
    pub const GOODBYE: u64 = 3;
    pub const GET: u64 = 4;
    pub const PUT: u64 = 5;
    pub const DELETE: u64 = 6;
    pub const REPLICATE: u64 = 7;
    pub const DIGESTS: u64 = 8;
    pub const BUCKET_VERSIONS: u64 = 9;
    pub const KEY_VERSIONS: u64 = 10;
    pub const FETCH: u64 = 11;
    pub const COPY: u64 = 12;
    pub const WATCH: u64 = 20;
    pub const GOSSIP: u64 = 21;
    pub const LEASE: u64 = 22;
    pub const RELEASE: u64 = 23;
    pub const FOLLOW: u64 = 24;
    pub const PURGE: u64 = 25;
    pub const LOCATE: u64 = 26;
    pub const CONDITIONAL: u64 = 27;
    pub const LISTEN: u64 = 28;
    pub const OFFER: u64 = 29;
}

pub mod tag {
    pub const CLUSTER: u32 = 1;
    pub const FROM: u32 = 2;
    pub const TO: u32 = 3;
    pub const SENT_MS: u32 = 4;
    pub const TIMEOUT_MS: u32 = 5;
    pub const SEEN: u32 = 6;

    pub const HELLO: u32 = 16;
    pub const KEY: u32 = 17;
    pub const VALUE: u32 = 18;
    pub const METADATA: u32 = 19;
    pub const TTL_MS: u32 = 20;
    pub const ACK: u32 = 21;
    pub const RECORD: u32 = 22;
    pub const FROM_SECOND: u32 = 23;
    pub const TO_SECOND: u32 = 24;
    pub const RESOLUTION: u32 = 25;
    pub const SELECTORS: u32 = 26;
    pub const LAST_SYNC_MS: u32 = 27;
    pub const BUCKETS: u32 = 28;
    pub const HASHES: u32 = 29;
    pub const FIRST_SHARD: u32 = 30;
    pub const COLDER_THAN: u32 = 31;
    pub const SINCE_TICK: u32 = 32;
    pub const LAST_SHARD: u32 = 33;
    pub const AGE_MS: u32 = 35;
    pub const KNOWN: u32 = 36;
    pub const GOSSIP: u32 = 40;
    pub const VIEW: u32 = 41;
    pub const LEASE_MS: u32 = 42;
    pub const WAIT_MS: u32 = 43;
    pub const TOKEN: u32 = 44;
    pub const FAILED: u32 = 45;
    pub const SINCE: u32 = 46;
    pub const NEWER_THAN: u32 = 47;
    pub const TARGET: u32 = 48;
    pub const SOFT: u32 = 49;
    pub const HOLD_MS: u32 = 50;
    pub const WITH_PURGES: u32 = 51;
    pub const OPERATION: u32 = 52;
    pub const EXPECTED: u32 = 53;
    pub const AT_ONCE: u32 = 54;
    pub const OWNED: u32 = 55;
    pub const OFFERED: u32 = 56;
    pub const KEYS: u32 = 60;
    pub const DIGEST: u32 = 61;
    pub const SPREAD: u32 = 62;
}
