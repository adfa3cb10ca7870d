//! Operations of a [`ZerocacheClient`](crate::ZerocacheClient), and the types of their parameters and
//! results.

pub use zerocache_core::{
    locate::{CopyState, KeyCopy, Verdict},
    metadata::{Encoding, EntryKind, Freshness, Metadata},
    route::Tier,
    version::Incarnation,
};
pub use zerocache_net::{security::TlsMode, transport::Connections};

pub use crate::{
    client::{
        Change, Changes, ConditionalOutcome, ConditionalWrite, ExplainGet, Get, GetAndDelete,
        GetEntry, GetFrom, GetMany, GetManyEach, GetManyValues, GetManyValuesEach, GetValue,
        Listen, Locate, Location, Locations, Subject, Taken, Write, WriteMany, WriteManyEach,
    },
    codec::IntoValue,
    lifetime::Lifetime,
};
