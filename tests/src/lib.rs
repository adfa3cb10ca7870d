//! What the process tests share.
