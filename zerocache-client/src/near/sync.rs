//! What threads share in the near cache. `schedules` compiles it with others, whose schedules can be chosen.

pub(super) use std::{
    sync::atomic::{AtomicU32, AtomicU64},
    thread_local,
};

pub(super) use parking_lot::{Mutex, RwLock};
