//! The locks of the writer. `tests/schedules` compiles it with others, whose schedules can be chosen.

pub(super) use parking_lot::Mutex;
